package loop

// passesPerRound bounds how often a round may go over what its own end brought
// about, so that streams that always have more to say cannot keep timers and
// posted work waiting.
const passesPerRound = 4

// settler is a stream with something to do at the end of the round.
type settler interface{ settle() }

// ending is a Closed call that is due.
type ending struct {
	h   Handler
	err error
}

// agenda is what a round leaves to its end: output is gathered until every
// input was seen, and Closed is never called from inside another call.
type agenda struct {
	touched, touchedSpare []settler
	ended, endedSpare     []ending
}

// touch puts s on the agenda. The caller makes sure that it is there once.
func (a *agenda) touch(s settler) { a.touched = append(a.touched, s) }

// end schedules the last call a handler gets.
func (a *agenda) end(h Handler, err error) { a.ended = append(a.ended, ending{h, err}) }

func (a *agenda) empty() bool { return len(a.touched)+len(a.ended) == 0 }

// run settles streams and delivers endings, and what these bring about, up to
// a bound; what is left then is for the next round, before which the loop must
// not sleep. before runs ahead of each entry.
func (a *agenda) run(before func()) {
	for range passesPerRound {
		if a.empty() {
			return
		}
		streams := a.touched
		a.touched = a.touchedSpare
		for i, s := range streams {
			streams[i] = nil
			before()
			s.settle()
		}
		a.touchedSpare = streams[:0]

		endings := a.ended
		a.ended = a.endedSpare
		for i, e := range endings {
			endings[i] = ending{}
			before()
			e.h.Closed(e.err)
		}
		a.endedSpare = endings[:0]
	}
}
