package session

// State is a session's state.
type State uint8

// The states. The table transitions says how one leads to another.
const (
	StateFree       State = iota // made, not started
	StateLogin                   // dialing or logging in
	StateLoggedIn                // full-feature phase
	StateRecovering              // lost; waiting to dial again
	StateClosing                 // logout is under way
	StateClosed                  // over; never comes back
	numStates
)

var stateNames = [numStates]string{"free", "login", "logged-in", "recovering", "closing", "closed"}

// String gives the name used in logs and tables.
func (s State) String() string { return stateNames[s] }

// event is what moves a session from state to state.
type event uint8

const (
	evStart    event = iota // Start was called
	evLoggedIn              // the final Login Response came
	evLost                  // the connection ended, or could not be made
	evRetry                 // time to dial again
	evClose                 // Close was called
	evClosed                // nothing is left to wait for
	numEvents
)

var eventNames = [numEvents]string{"start", "logged-in", "lost", "retry", "close", "closed"}

func (e event) String() string { return eventNames[e] }

// none marks combinations that cannot happen.
const none = numStates

// transitions is the whole life of a session: transitions[state][event]. It is
// the table of RFC 7143 §8.3 for an initiator at ErrorRecoveryLevel 0: a lost
// connection is a lost session, and the next login reinstates it.
var transitions = [numStates][numEvents]State{
	//                evStart     evLoggedIn     evLost           evRetry     evClose       evClosed
	StateFree:       {StateLogin, none, none, none, StateClosing, none},
	StateLogin:      {none, StateLoggedIn, StateRecovering, none, StateClosing, none},
	StateLoggedIn:   {none, none, StateRecovering, none, StateClosing, none},
	StateRecovering: {none, none, none, StateLogin, StateClosing, none},
	StateClosing:    {none, none, StateClosing, none, none, StateClosed},
	StateClosed:     {none, none, none, none, none, none},
}

// to moves the session along the table.
func (s *Session) to(e event) {
	next := transitions[s.state][e]
	if next == none {
		// Only our own calls lead here, never a peer.
		panic("session: event " + e.String() + " in state " + s.state.String())
	}
	s.state = next
}
