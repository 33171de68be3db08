package loop

// Load is what those who run on a loop tell it of their work, so that it can
// tell a busy moment from a quiet one. All of it is used on the loop only.
type Load struct {
	inFlight int64  // commands that a peer has and has not answered
	events   uint64 // commands sent plus commands answered, ever
}

// Sent notes that a command was handed to a peer.
func (l *Load) Sent() { l.inFlight++; l.events++ }

// Answered notes that a command came back, in whatever way.
func (l *Load) Answered() { l.inFlight--; l.events++ }

// loader is a loop that wants to be told.
type loader interface{ load() *Load }

// LoadOf returns where l wants to be told of work. A loop that does not care
// gets a Load of its own that nobody reads.
func LoadOf(l Loop) *Load {
	if l, ok := l.(loader); ok {
		return l.load()
	}
	return new(Load)
}
