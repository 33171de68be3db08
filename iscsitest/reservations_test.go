package iscsitest

import (
	"fmt"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/scsi"
)

// nexus logs in as initiator n: each is an I_T nexus of its own.
func nexus(t *testing.T, tgt *Target, n byte) *client {
	t.Helper()
	c := connect(t, tgt, 0)
	c.isid[5] = n
	c.login()
	return c
}

// prout sends PERSISTENT RESERVE OUT.
func (c *client) prout(sa uint8, typ scsi.ReservationType, p scsi.ReserveParameters) outcome {
	c.t.Helper()
	data := p.AppendTo(nil)
	c.send(c.command(0, scsi.PersistentReserveOut(sa, typ), uint32(len(data)), false, true), data)
	return c.await()
}

// register registers key, whatever was registered before.
func (c *client) register(key uint64) {
	c.t.Helper()
	require.Equal(c.t, scsi.Good, c.prout(scsi.SARegisterAndIgnore, 0, scsi.ReserveParameters{ActionKey: key}).status)
}

// status is the status of a PERSISTENT RESERVE OUT with the nexus's own key.
func (c *client) reserve(sa uint8, typ scsi.ReservationType, key, action uint64) scsi.Status {
	c.t.Helper()
	return c.prout(sa, typ, scsi.ReserveParameters{Key: key, ActionKey: action}).status
}

// news are the codes of all unit attentions pending.
func (c *client) news() (codes []scsi.ASC) {
	c.t.Helper()
	for {
		o := c.run(0, scsi.TestUnitReady(), 0)
		if o.status == scsi.Good {
			return codes
		}
		require.Equal(c.t, scsi.KeyUnitAttention, o.sense.Key)
		codes = append(codes, o.sense.Code)
	}
}

func (c *client) reservation() scsi.Reservation {
	c.t.Helper()
	r, err := scsi.ParseReservation(c.run(0, scsi.PersistentReserveIn(scsi.SAReadReservation, 64), 64).data)
	require.NoError(c.t, err)
	return r
}

func (c *client) registered() []uint64 {
	c.t.Helper()
	_, keys, err := scsi.ParseReserveKeys(c.run(0, scsi.PersistentReserveIn(scsi.SAReadKeys, 256), 256).data)
	require.NoError(c.t, err)
	return keys
}

// accesses is what the commands of a nexus come to: reads, writes, flushes, and
// commands about the unit.
func (c *client) accesses() (got [4]scsi.Status) {
	c.t.Helper()
	got[0] = c.run(0, scsi.Read(0, 1, 0), 512).status
	got[1] = c.write(0, make([]byte, 512)).status
	got[2] = c.run(0, scsi.SyncCache10(0, 0), 0).status
	got[3] = c.run(0, scsi.ReadCapacity10(), 8).status
	return got
}

func TestReservationsLetIn(t *testing.T) {
	const ok, no = scsi.Good, scsi.ReservationConflict
	all := [4]scsi.Status{}
	for typ, want := range map[scsi.ReservationType]struct{ registered, others [4]scsi.Status }{
		scsi.WriteExclusive:                {[4]scsi.Status{ok, no, no, ok}, [4]scsi.Status{ok, no, no, ok}},
		scsi.ExclusiveAccess:               {[4]scsi.Status{no, no, no, ok}, [4]scsi.Status{no, no, no, ok}},
		scsi.WriteExclusiveRegistrantsOnly: {all, [4]scsi.Status{ok, no, no, ok}},
		scsi.ExclusiveRegistrantsOnly:      {all, [4]scsi.Status{no, no, no, ok}},
		scsi.WriteExclusiveAllRegistrants:  {all, [4]scsi.Status{ok, no, no, ok}},
		scsi.ExclusiveAllRegistrants:       {all, [4]scsi.Status{no, no, no, ok}},
	} {
		t.Run(typ.Short(), func(t *testing.T) {
			tgt := startTarget(t, Config{})
			holder, registered, other := nexus(t, tgt, 1), nexus(t, tgt, 2), nexus(t, tgt, 3)
			holder.register(0xa)
			registered.register(0xb)
			assert.Equal(t, scsi.ReservationConflict, other.reserve(scsi.SAReserve, typ, 0, 0), "not registered")
			require.Equal(t, scsi.Good, holder.reserve(scsi.SAReserve, typ, 0xa, 0))
			require.Equal(t, scsi.Good, holder.reserve(scsi.SAReserve, typ, 0xa, 0), "once more")
			assert.Equal(t, all, holder.accesses())
			assert.Equal(t, want.registered, registered.accesses())
			assert.Equal(t, want.others, other.accesses())
			key := uint64(0xa)
			if typ.AllHold() {
				key = 0
			}
			assert.Equal(t, scsi.Reservation{Generation: 2, Held: true, Key: key, Type: typ}, other.reservation())
		})
	}
}

func TestReservationsAreReleased(t *testing.T) {
	for _, typ := range scsi.ReservationTypes() {
		for _, how := range []string{"release", "unregister"} {
			t.Run(fmt.Sprintf("%s by %s", typ.Short(), how), func(t *testing.T) {
				tgt := startTarget(t, Config{})
				holder, registered, other := nexus(t, tgt, 1), nexus(t, tgt, 2), nexus(t, tgt, 3)
				holder.register(0xa)
				registered.register(0xb)
				require.Equal(t, scsi.Good, holder.reserve(scsi.SAReserve, typ, 0xa, 0))
				held := typ.AllHold() && how == "unregister" // the other registrant holds it too
				if how == "release" {
					if !typ.AllHold() {
						require.Equal(t, scsi.Good, registered.reserve(scsi.SARelease, typ, 0xb, 0), "no error, no effect")
						require.True(t, other.reservation().Held)
					}
					require.Equal(t, scsi.Good, holder.reserve(scsi.SARelease, typ, 0xa, 0))
				} else {
					require.Equal(t, scsi.Good, holder.reserve(scsi.SARegister, 0, 0xa, 0))
				}
				assert.Equal(t, held, other.reservation().Held)
				var want []scsi.ASC
				if typ.Registrants() && !held {
					want = []scsi.ASC{scsi.ASCReservationsReleased}
				}
				assert.Equal(t, want, registered.news())
				assert.Empty(t, other.news())
				assert.Empty(t, holder.news())
			})
		}
	}
}

func TestRegister(t *testing.T) {
	tgt := startTarget(t, Config{})
	a, b := nexus(t, tgt, 1), nexus(t, tgt, 2)
	assert.Equal(t, scsi.ReservationConflict, a.reserve(scsi.SARegister, 0, 7, 1), "a key where none is registered")
	require.Equal(t, scsi.Good, a.reserve(scsi.SARegister, 0, 0, 1))
	assert.Equal(t, scsi.ReservationConflict, a.reserve(scsi.SARegister, 0, 0, 2), "no key where one is registered")
	require.Equal(t, scsi.Good, a.reserve(scsi.SARegister, 0, 1, 2))
	b.register(2)
	assert.Equal(t, []uint64{2, 2}, a.registered())
	assert.Equal(t, uint32(3), a.reservation().Generation)
	require.Equal(t, scsi.Good, b.reserve(scsi.SARegister, 0, 2, 0))
	assert.Equal(t, []uint64{2}, a.registered())
}

func TestReserveOutThatIsRefused(t *testing.T) {
	tgt := startTarget(t, Config{})
	a := nexus(t, tgt, 1)
	a.register(2)
	own := scsi.ReserveParameters{Key: 2}.AppendTo(nil)
	for what, p := range map[string]struct {
		sa   uint8
		typ  scsi.ReservationType
		data []byte
		code scsi.ASC
	}{
		"short list":  {scsi.SARegister, 0, own[:16], scsi.ASCParameterListLength},
		"long list":   {scsi.SARegister, 0, append(own, 0), scsi.ASCParameterListLength},
		"SPEC_I_PT":   {scsi.SARegister, 0, append(own[:20:20], 8, 0, 0, 0), scsi.ASCInvalidFieldInParameters},
		"ALL_TG_PT":   {scsi.SARegister, 0, append(own[:20:20], 4, 0, 0, 0), scsi.ASCInvalidFieldInParameters},
		"move":        {scsi.SARegisterAndMove, 0, own, scsi.ASCInvalidFieldInCDB},
		"no type":     {scsi.SAReserve, 2, own, scsi.ASCInvalidFieldInCDB},
		"preempt all": {scsi.SAPreempt, 1, own, scsi.ASCInvalidFieldInParameters},
	} {
		cdb := scsi.PersistentReserveOut(p.sa, p.typ)
		cdb[8] = byte(len(p.data))
		a.send(a.command(0, cdb, uint32(len(p.data)), false, true), p.data)
		assert.Equal(t, p.code, a.await().sense.Code, what)
	}
	assert.Equal(t, scsi.ASCInvalidFieldInCDB, a.run(0, scsi.PersistentReserveIn(4, 24), 24).sense.Code)
	assert.Equal(t, []uint64{2}, a.registered())
	require.Equal(t, scsi.Good, a.reserve(scsi.SAReserve, scsi.WriteExclusive, 2, 0))
	assert.Equal(t, scsi.ASCInvalidRelease, a.prout(scsi.SARelease, scsi.ExclusiveAccess, scsi.ReserveParameters{Key: 2}).sense.Code)
	assert.Equal(t, scsi.ReservationConflict, a.reserve(scsi.SAReserve, scsi.ExclusiveAccess, 2, 0), "another type")
}

func TestFullStatus(t *testing.T) {
	tgt := startTarget(t, Config{})
	a, b := nexus(t, tgt, 1), nexus(t, tgt, 2)
	a.register(0xa)
	b.register(0xb)
	require.Equal(t, scsi.Good, a.reserve(scsi.SAReserve, scsi.WriteExclusiveRegistrantsOnly, 0xa, 0))
	_, list, err := scsi.ParseFullStatus(b.run(0, scsi.PersistentReserveIn(scsi.SAReadFullStatus, 1024), 1024).data)
	require.NoError(t, err)
	require.Len(t, list, 2)
	assert.True(t, list[0].Holder)
	assert.Equal(t, scsi.WriteExclusiveRegistrantsOnly, list[0].Type)
	assert.False(t, list[1].Holder)
	name, isid, _, err := scsi.ParseISCSITransportID(list[1].TransportID)
	require.NoError(t, err)
	assert.Equal(t, "iqn.2026-01.test:initiator", name)
	assert.Equal(t, b.isid, isid)

	caps, err := scsi.ParseReserveCapabilities(b.run(0, scsi.PersistentReserveIn(scsi.SAReportCapabilities, 64), 64).data)
	require.NoError(t, err)
	assert.True(t, caps.PersistCapable && caps.TypesKnown)
	assert.Equal(t, scsi.ReservationTypes(), caps.Types)
}

func TestPreempt(t *testing.T) {
	tgt := startTarget(t, Config{})
	a, a2, b, c := nexus(t, tgt, 1), nexus(t, tgt, 2), nexus(t, tgt, 3), nexus(t, tgt, 4)
	a.register(0xa)
	a2.register(0xa)
	b.register(0xb)
	c.register(0xc)
	require.Equal(t, scsi.Good, a.reserve(scsi.SAReserve, scsi.ExclusiveRegistrantsOnly, 0xa, 0))
	assert.Equal(t, scsi.ReservationConflict, b.reserve(scsi.SAPreempt, scsi.ExclusiveRegistrantsOnly, 0xb, 0xd), "nobody has that key")
	assert.Equal(t, scsi.ReservationConflict, b.reserve(scsi.SAPreempt, scsi.ExclusiveRegistrantsOnly, 0xc, 0xa), "that is not b's key")

	require.Equal(t, scsi.Good, b.reserve(scsi.SAPreempt, scsi.WriteExclusiveRegistrantsOnly, 0xb, 0xa))
	assert.Equal(t, []uint64{0xb, 0xc}, b.registered())
	assert.Equal(t, scsi.Reservation{Generation: 5, Held: true, Key: 0xb, Type: scsi.WriteExclusiveRegistrantsOnly}, b.reservation())
	assert.Equal(t, []scsi.ASC{scsi.ASCRegistrationsPreempted}, a.news())
	assert.Equal(t, []scsi.ASC{scsi.ASCRegistrationsPreempted}, a2.news())
	assert.Equal(t, []scsi.ASC{scsi.ASCReservationsReleased}, c.news(), "the type is another")
	assert.Empty(t, b.news())
	assert.Equal(t, scsi.ReservationConflict, a.write(0, make([]byte, 512)).status)

	require.Equal(t, scsi.Good, b.reserve(scsi.SAPreempt, 0, 0xb, 0xc), "who holds nothing")
	assert.Equal(t, []uint64{0xb}, b.registered())
	assert.True(t, b.reservation().Held)
	assert.Equal(t, []scsi.ASC{scsi.ASCRegistrationsPreempted}, c.news())
}

func TestPreemptAllRegistrants(t *testing.T) {
	tgt := startTarget(t, Config{})
	a, b, c := nexus(t, tgt, 1), nexus(t, tgt, 2), nexus(t, tgt, 3)
	a.register(0xa)
	b.register(0xb)
	c.register(0xc)
	const typ = scsi.WriteExclusiveAllRegistrants
	require.Equal(t, scsi.Good, a.reserve(scsi.SAReserve, typ, 0xa, 0))
	require.Equal(t, scsi.Good, b.reserve(scsi.SAPreempt, typ, 0xb, 0xa))
	assert.Equal(t, []uint64{0xb, 0xc}, b.registered())
	assert.True(t, b.reservation().Held)
	require.Equal(t, scsi.Good, b.reserve(scsi.SAPreempt, scsi.WriteExclusive, 0xb, 0), "everybody")
	assert.Equal(t, []uint64{0xb}, b.registered())
	assert.Equal(t, scsi.Reservation{Generation: 5, Held: true, Key: 0xb, Type: scsi.WriteExclusive}, b.reservation())
	assert.Equal(t, []scsi.ASC{scsi.ASCRegistrationsPreempted}, c.news())
}

func TestClear(t *testing.T) {
	tgt := startTarget(t, Config{})
	a, b := nexus(t, tgt, 1), nexus(t, tgt, 2)
	a.register(0xa)
	b.register(0xb)
	require.Equal(t, scsi.Good, a.reserve(scsi.SAReserve, scsi.WriteExclusive, 0xa, 0))
	require.Equal(t, scsi.Good, b.reserve(scsi.SAClear, 0, 0xb, 0))
	assert.Equal(t, ReservationState{Generation: 3, Keys: []uint64{}}, tgt.Reservations(0).State())
	assert.Equal(t, []scsi.ASC{scsi.ASCReservationsPreempted}, a.news())
	assert.Empty(t, b.news())
	assert.Equal(t, scsi.ReservationConflict, b.reserve(scsi.SAClear, 0, 0xb, 0), "not registered any more")
}

// TestPreemptAndAbort: a target hangs with a write; its nexus is preempted, with
// or without the abort; then it wakes up.
func TestPreemptAndAbort(t *testing.T) {
	for sa, lands := range map[uint8]bool{scsi.SAPreempt: true, scsi.SAPreemptAndAbort: false} {
		for _, gone := range []bool{false, true} {
			t.Run(fmt.Sprintf("lands=%t,session gone=%t", lands, gone), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					tgt := startTarget(t, Config{})
					a, b := nexus(t, tgt, 1), nexus(t, tgt, 2)
					a.register(0xa)
					b.register(0xb)
					hold := NewHold(HoldHung)
					tgt.Inject(Writes(), HoldWrite(hold))
					a.send(a.command(0, scsi.Write(0, 1, 0), 512, false, true), pattern(512, 1))
					require.NoError(t, hold.WaitHeld(t.Context(), 1))
					if gone {
						tgt.DropSessions(ByTSIH(a.tsih))
					}
					require.Equal(t, scsi.Good, b.reserve(sa, scsi.WriteExclusive, 0xb, 0xa))
					hold.Release()
					synctest.Wait()
					assert.Equal(t, lands, isPattern(readMedium(t, tgt, 0, 1), 1))
				})
			})
		}
	}
}

func TestReservationsOverARestart(t *testing.T) {
	for _, aptpl := range []bool{false, true} {
		t.Run(fmt.Sprintf("aptpl=%t", aptpl), func(t *testing.T) {
			r, medium := &Reservations{}, NewMemory(1<<20)
			cfg := Config{LUNs: []LUN{{Medium: medium, Reservations: r}}}
			tgt := startTarget(t, cfg)
			a := nexus(t, tgt, 1)
			require.Equal(t, scsi.Good, a.prout(scsi.SARegister, 0, scsi.ReserveParameters{ActionKey: 0xa, APTPL: aptpl}).status)
			require.Equal(t, scsi.Good, a.reserve(scsi.SAReserve, scsi.WriteExclusive, 0xa, 0))
			assert.Equal(t, aptpl, r.State().APTPL)
			tgt.Close()
			r.PowerLoss()
			tgt = startTarget(t, cfg)
			a, b := nexus(t, tgt, 1), nexus(t, tgt, 2)
			want, keys := scsi.Good, []uint64{}
			if aptpl {
				want, keys = scsi.ReservationConflict, []uint64{0xa}
			}
			assert.Equal(t, keys, b.registered())
			assert.Equal(t, want, b.write(0, make([]byte, 512)).status)
			assert.Equal(t, scsi.Good, a.write(0, make([]byte, 512)).status)
			assert.Zero(t, b.reservation().Generation)
		})
	}
}

// TestReservationsOfOneDiskBehindTwoTargets: the controllers of an array know of
// each other's reservations.
func TestReservationsOfOneDiskBehindTwoTargets(t *testing.T) {
	r, medium := &Reservations{}, NewMemory(1<<20)
	cfg := Config{LUNs: []LUN{{Medium: medium, Serial: "X", Reservations: r}}}
	one, two := startTarget(t, cfg), startTarget(t, cfg)
	a, b := nexus(t, one, 1), nexus(t, two, 2)
	a.register(0xa)
	b.register(0xb)
	require.Equal(t, scsi.Good, a.reserve(scsi.SAReserve, scsi.ExclusiveAccess, 0xa, 0))
	assert.Equal(t, scsi.ReservationConflict, b.write(0, make([]byte, 512)).status)
	require.Equal(t, scsi.Good, b.reserve(scsi.SAPreempt, scsi.ExclusiveAccess, 0xb, 0xa))
	assert.Equal(t, []scsi.ASC{scsi.ASCRegistrationsPreempted}, a.news())
	assert.Equal(t, scsi.ReservationConflict, a.write(0, make([]byte, 512)).status)
}
