package session

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/pdu"
)

// TestTaskTable compares the table with a list, over random additions and
// removals: tags, order by age, what late answers find.
func TestTaskTable(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	for _, size := range []int{1, 2, 9, 136} {
		tt := newTaskTable(size)
		var live []*task // oldest first
		var tags []uint32
		var late []uint32 // of tasks that are over
		for now := range int64(800) {
			if rng.IntN(2) == 0 {
				kind := []taskKind{taskSCSI, taskSCSI, taskNOP, taskText, taskLogout}[rng.IntN(5)]
				n := tt.add(kind, nil, now)
				if len(live) == size {
					require.Nil(t, n)
				} else {
					require.NotNil(t, n)
					require.Equal(t, kind, n.kind)
					require.Equal(t, now, n.at)
					require.Nil(t, n.cmd)
					require.False(t, n.waiting || n.read || n.write)
					require.Zero(t, n.next+n.dataSN+n.r2tSN+n.length)
					require.NotContains(t, tags, n.itt)
					require.NotContains(t, late, n.itt, "a tag is not used again soon")
					live, tags = append(live, n), append(tags, n.itt)
				}
			} else if len(live) > 0 {
				i := rng.IntN(len(live))
				tt.remove(live[i])
				late = append(late, tags[i])
				live, tags = slices.Delete(live, i, i+1), slices.Delete(tags, i, i+1)
			}
			checkTable(t, &tt, live, tags)
			if len(late) > 0 {
				require.Nil(t, tt.find(late[rng.IntN(len(late))]), "a late answer finds nothing")
			}
		}
	}
}

func checkTable(t *testing.T, tt *taskTable, live []*task, tags []uint32) {
	scsi := 0
	var order []*task
	for n := tt.first(); n != nil; {
		order = append(order, n)
		if n.newer == 0 {
			break
		}
		n = &tt.slots[n.newer-1]
	}
	require.Equal(t, len(live), len(order))
	for i, n := range order {
		if live[i] != n || tt.find(tags[i]) != n || tags[i] != n.itt {
			t.Fatal("the list by age, or the search by tag, is wrong")
		}
		if n.kind == taskSCSI {
			scsi++
		}
	}
	require.Equal(t, scsi, tt.scsi)
	require.Len(t, tt.free, len(tt.slots)-len(live))
}

// TestTagsNeverReserved: also when the generations begin anew.
func TestTagsNeverReserved(t *testing.T) {
	tt := newTaskTable(maxTasks + extraTasks)
	require.Nil(t, tt.find(pdu.ReservedTag))
	require.Nil(t, tt.find(0))
	require.LessOrEqual(t, len(tt.slots), ittIndexMask, "indexes fit the tag")
	tt.gen = 1<<(32-ittIndexBits) - 3
	seen := map[uint32]bool{}
	for range maxTasks {
		n := tt.add(taskSCSI, nil, 1)
		require.NotEqual(t, uint32(pdu.ReservedTag), n.itt)
		require.False(t, seen[n.itt])
		seen[n.itt] = true
		require.Same(t, n, tt.find(n.itt))
	}
	// A table that had the index of the reserved tag would step over it.
	full := newTaskTable(ittIndexMask + 1)
	full.gen = 1<<(32-ittIndexBits) - 2
	full.free = []int32{ittIndexMask}
	require.NotEqual(t, uint32(pdu.ReservedTag), full.add(taskSCSI, nil, 1).itt)
}
