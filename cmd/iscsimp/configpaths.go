package main

import (
	"cmp"
	"slices"

	"github.com/iscsimp/iscsimp/initiator"
	"github.com/iscsimp/iscsimp/internal/yaml"
)

// steeredPath is how one path is steered, as far as a file says.
type steeredPath struct {
	initiator.PathSetting
	stated bool // it says whether the path is up or down
}

// paths reads how the paths of a device are steered: by portal, each with
// priority, weight and state.
func (r *configReader) paths(n *yaml.Node) ([]steeredPath, error) {
	if n.Kind == yaml.Empty {
		return nil, nil
	}
	if n.Kind != yaml.Map {
		return nil, r.wrong(n.Line, "paths must hold portals, each with settings below it, not %v", n.Kind)
	}
	var list []steeredPath
	seen := map[string]int{}
	for _, e := range n.Entries {
		set, err := r.path(e)
		if err != nil {
			return nil, err
		}
		if seen[set.Portal] > 0 {
			return nil, r.wrong(e.Line, "portal %s is there twice, first on line %d; keep one", set.Portal, seen[set.Portal])
		}
		seen[set.Portal] = e.Line
		list = append(list, set)
	}
	return list, nil
}

func (r *configReader) path(e yaml.Entry) (set steeredPath, err error) {
	if set.Portal, err = initiator.ParsePortal(e.Key); err != nil {
		return set, r.wrong(e.Line, "%v", err)
	}
	if e.Node.Kind != yaml.Map {
		return set, r.wrong(e.Line, "portal %s must hold priority, weight or state, not %v", e.Key, e.Node.Kind)
	}
	for _, v := range e.Node.Entries {
		value, err := r.scalar(v)
		if err != nil {
			return set, err
		}
		switch v.Key {
		case "priority", "weight":
			op, oerr := pathCommand{Action: v.Key, Value: value}.op()
			if oerr != nil {
				return set, r.wrong(v.Line, "%v", oerr)
			}
			if v.Key == "priority" {
				set.Priority = op.Value
			} else {
				set.Weight = op.Value
			}
		case "state":
			switch value {
			case "up", "down":
				set.Down, set.stated = value == "down", true
			default:
				return set, r.wrong(v.Line, "state %q: use up or down", value)
			}
		default:
			return set, r.wrong(v.Line, "there is no setting %q of a path%s; there are priority, weight and state", v.Key, didYouMean(v.Key, []string{"priority", "weight", "state"}))
		}
	}
	return set, nil
}

// mergePaths gives what both say; where they disagree, what first says.
func mergePaths(first, second []steeredPath) []steeredPath {
	merged := slices.Clone(first)
	for _, s := range second {
		i := slices.IndexFunc(merged, func(m steeredPath) bool { return m.Portal == s.Portal })
		if i < 0 {
			merged = append(merged, s)
			continue
		}
		m := &merged[i]
		m.Priority, m.Weight = cmp.Or(m.Priority, s.Priority), cmp.Or(m.Weight, s.Weight)
		if !m.stated {
			m.Down, m.stated = s.Down, s.stated
		}
	}
	return merged
}

// pathSettings are steered paths as the library takes them.
func pathSettings(paths []steeredPath) []initiator.PathSetting {
	var list []initiator.PathSetting
	for _, p := range paths {
		list = append(list, p.PathSetting)
	}
	return list
}
