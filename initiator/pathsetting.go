package initiator

import "slices"

// PathSetting is what is known beforehand of the path to one portal: how it was
// steered by hand, as SetPath does for a running device.
type PathSetting struct {
	// Portal is the portal of the path, as ParsePortal takes it; a path that
	// discovery finds is meant as well. Required.
	Portal string
	// Priority and Weight are those of the path: see PathPriority and PathWeight.
	// 0: the default, 1.
	Priority, Weight int
	// Down leaves the path out of use until SetPath takes it in: see PathDown.
	Down bool
}

// Limits of PathSetting and PathOp.
const (
	MaxPriority = 4_000_000
	MaxWeight   = 1000
)

// cleanPaths validates settings, and writes their portals in the one form.
func cleanPaths(settings []PathSetting) ([]PathSetting, error) {
	clean := make([]PathSetting, 0, len(settings))
	for _, s := range settings {
		portal, err := ParsePortal(s.Portal)
		if err != nil {
			return nil, err
		}
		s.Portal = portal
		if s.Priority < 0 || s.Priority > MaxPriority || s.Weight < 0 || s.Weight > MaxWeight {
			return nil, invalidf("use 1 to 4000000 and 1 to 1000; 0 is the default", "portal %s: priority %d, weight %d", portal, s.Priority, s.Weight)
		}
		if slices.ContainsFunc(clean, func(c PathSetting) bool { return c.Portal == portal }) {
			return nil, invalidf("keep one of the two", "there are two settings for portal %s", portal)
		}
		clean = append(clean, s)
	}
	return clean, nil
}

// setting gives what is known beforehand of a path. addresses are the ways to
// write its portal.
func (c *Config) setting(addresses []string) PathSetting {
	for _, s := range c.Paths {
		if slices.Contains(addresses, s.Portal) {
			return s
		}
	}
	return PathSetting{}
}
