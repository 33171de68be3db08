/*
 * The write fence (../../docs/recovery.md) as a model for spin: one block, W
 * writes in the order of their age, P paths with up to G-1 logins each. Everything
 * that may happen is one step of the loop at the end, in any order.
 *
 * Checked: no acknowledged write is ever replaced by an older one.
 *
 * Which function of package mpio takes which step is said in README.md; the
 * same steps in Go are in ../model_test.go.
 *
 * Mutants, each of which must be found wrong (-D):
 *   NOFENCE    no ghost is raised for a write whose session was lost
 *   ACKLIFTS   completing a write settles its ghosts
 *   ANYLOGIN   a login that proves nothing settles, too
 *   NOCHAIN    a login that proves settles what is older than a login that did not
 *   NOORDER    overlapping writes are not kept in order while they are open
 *   NONOTE     a restart knows nothing of the sessions before it
 *   NOSHARE    with another host (OTHER), a write is answered before its ghosts are settled
 */
#ifndef W
#define W 3
#endif
#ifndef P
#define P 2
#endif
#ifndef G
#define G 3
#endif
#ifndef CRASHES
#define CRASHES 1
#endif

#define NEW    0	/* not submitted yet */
#define OPEN   1	/* waits, or is about to be sent */
#define SENT   2	/* with a path */
#define OVER   3	/* acknowledged, failed, or lost with its process */

#define ALIVE  1	/* a copy the target has not executed */
#define DONE   2	/* ... has executed; its answer is under way */

byte medium;		/* the write that the block holds */
byte acked;		/* the newest that was acknowledged */
byte next = 1;		/* the next to be submitted */
byte state[W + 1];
byte at[W + 1];		/* path of a write that is SENT */

/* Per path. */
byte gen[P];		/* logins */
byte chain[P];		/* login since when each one ended the session before it */
bool logged[P];
bool up[P];		/* the unit behind was checked: it carries I/O */
bool fresh[P];		/* no login in this process yet */
bool unproven[P];	/* a login of this process ended nothing */

/* Copies at the target, and ghosts here: by write, path and login. */
#define X(w, p, g) (((w) * P + (p)) * G + (g))
byte copy[(W + 1) * P * G];
bit ghost[(W + 1) * P * G];

/* What an earlier process left: a ghost over everything, for each path. */
bool earlier[P];
bool provable[P];
byte before[P];		/* its last login there */
byte crashes;

#ifdef NOCHAIN
bool last[P];		/* the last login proved something */
#endif
#ifdef OTHER
bool others;		/* another host has written */
bool unsure;		/* a write failed, or its process died: the other host has not been told that it is over */
#endif

#ifdef OTHER
#define UNSURE unsure = true
#else
#define UNSURE skip
#endif

byte i, j;		/* scratch */
bool ok;

#define MINE(w) copy[X(w, at[w], gen[at[w]])]

/* An older write is open, or a ghost of one is not settled. */
inline mayGo(w) {
	ok = true;
	for (i : 1 .. W) {
		if
#ifndef NOORDER
		:: i < w && (state[i] == OPEN || state[i] == SENT) -> ok = false
#endif
		:: else
		fi
		for (j : 0 .. P * G - 1) {
			if
			:: i < w && ghost[i * P * G + j] -> ok = false
#if defined(OTHER) && !defined(NOSHARE)
			:: i == w && ghost[i * P * G + j] -> ok = false
#endif
			:: else
			fi
		}
	}
	for (i : 0 .. P - 1) {
		if
		:: earlier[i] -> ok = false
		:: else
		fi
	}
	i = 0; j = 0
}

inline land(w) {
	medium = w;
	assert(medium >= acked)
}

inline submit() {
	state[next] = OPEN; next++
}

inline send(w, p) {
	state[w] = SENT; at[w] = p; copy[X(w, p, gen[p])] = ALIVE
}

inline execute(w) {	/* the target, for a session that is alive */
	copy[X(w, at[w], gen[at[w]])] = DONE; land(w)
}

inline executeLate(w, p, g) {	/* the target, for a session that is lost here */
	copy[X(w, p, g)] = 0; land(w)
}

inline acknowledge(w) {
	copy[X(w, at[w], gen[at[w]])] = 0;
	state[w] = OVER; at[w] = 0;
	if
	:: w > acked -> acked = w
	:: else
	fi;
#ifdef ACKLIFTS
	for (j : 0 .. P * G - 1) { ghost[w * P * G + j] = 0 }
	j = 0;
#endif
	assert(medium >= acked)
}

inline again(w) {	/* another answer than success, an abort, a clean-up by Logout: the copy is over */
	copy[X(w, at[w], gen[at[w]])] = 0;
	state[w] = OPEN; at[w] = 0
}

inline fail(w) {	/* an error to the caller */
	state[w] = OVER;
	UNSURE
}

inline lose(p) {
	for (i : 1 .. W) {
		if
		:: state[i] == SENT && at[i] == p ->
			state[i] = OPEN; at[i] = 0;
#ifndef NOFENCE
			ghost[X(i, p, gen[p])] = 1;
#endif
			if
			:: copy[X(i, p, gen[p])] == DONE -> copy[X(i, p, gen[p])] = 0
			:: else
			fi
		:: else
		fi
	}
	i = 0;
	logged[p] = false; up[p] = false
}

inline move(w) {	/* from a path that fell silent: the copy there becomes a ghost */
#ifndef NOFENCE
	ghost[X(w, at[w], gen[at[w]])] = 1;
#endif
	if
	:: MINE(w) == DONE -> MINE(w) = 0
	:: else
	fi;
	state[w] = OPEN; at[w] = 0
}

inline answerLate(w, p) {	/* the target executed what was moved away, or ended it */
	copy[X(w, p, gen[p])] = 0; ghost[X(w, p, gen[p])] = 0
}

inline login(p, proves) {
	if
	:: proves ->	/* ends the session before it, and no other */
		for (i : 1 .. W) { copy[X(i, p, gen[p])] = 0 }
		i = 0;
		gen[p]++
	:: else ->
		gen[p]++;
#ifndef ANYLOGIN
#ifndef NOCHAIN
		chain[p] = gen[p];
#endif
		if
		:: !fresh[p] -> unproven[p] = true
		:: else
		fi;
		provable[p] = false
#endif
	fi;
#ifdef NOCHAIN
	last[p] = proves;
#endif
	logged[p] = true; fresh[p] = false
}

#ifdef NOCHAIN
#define PROVEN(p, g) (last[p] && (g) < gen[p])
#else
#define PROVEN(p, g) ((g) >= chain[p] && (g) < gen[p])
#endif

inline settle(p) {
	for (i : 1 .. W) {
		for (j : 0 .. G - 1) {
			if
			:: PROVEN(p, j) -> ghost[X(i, p, j)] = 0
			:: else
			fi
		}
	}
	i = 0; j = 0;
	if
	:: provable[p] -> earlier[p] = false; provable[p] = false; before[p] = 0
	:: else
	fi
}

inline check(p) {	/* the unit is the right one: only now the logins count */
	settle(p); up[p] = true
}

inline doubt(p) {	/* the target says something that calls for another check */
	up[p] = false
}

inline leave(p) {	/* a detour ends with the check; nothing was sent over it */
	settle(p); logged[p] = false
}

inline timeout_(w, p, g) {	/* that no copy is left by then is assumed, not proven */
	copy[X(w, p, g)] = 0; ghost[X(w, p, g)] = 0
}

inline timeoutEarlier(p) {
	for (i : 1 .. W) {
		for (j : 0 .. G - 1) {
			if
			:: j <= before[p] -> copy[X(i, p, j)] = 0
			:: else
			fi
		}
	}
	i = 0; j = 0;
	earlier[p] = false; provable[p] = false; before[p] = 0
}

inline crash() {	/* the process dies; the note remains */
	crashes++;
	for (i : 1 .. W) {
		if
		:: state[i] == OPEN || state[i] == SENT ->
			if
			:: state[i] == SENT && copy[X(i, at[i], gen[at[i]])] == DONE -> copy[X(i, at[i], gen[at[i]])] = 0
			:: else
			fi;
			state[i] = OVER; at[i] = 0;
			UNSURE
		:: else
		fi;
		for (j : 0 .. P * G - 1) { ghost[i * P * G + j] = 0 }
	}
	for (i : 0 .. P - 1) {
		if
		:: gen[i] > 0 ->
#ifndef NONOTE
			provable[i] = !unproven[i] && (!earlier[i] || provable[i]);
			earlier[i] = true; before[i] = gen[i];
#else
			skip
#endif
		:: else
		fi;
		logged[i] = false; up[i] = false; fresh[i] = true; unproven[i] = false;
		chain[i] = 0
	}
	i = 0; j = 0
}

#ifdef OTHER
inline other() {	/* another host writes once it knows that this one is done */
	others = true; medium = W + 1; acked = W + 1
}
#endif

/* Every step, for every write, path and login. */
#define AWAY(w, p)	!(state[w] == SENT && at[w] == p)
#define QUIET(w)	(state[w] != OPEN && state[w] != SENT)
#if W == 2
#define EACHW(M)	M(1) M(2)
#define EACHWOF(M, p)	M(1, p) M(2, p)
#define IDLE(p)		(AWAY(1, p) && AWAY(2, p))
#define ALLQUIET	(QUIET(1) && QUIET(2))
#elif W == 3
#define EACHW(M)	M(1) M(2) M(3)
#define EACHWOF(M, p)	M(1, p) M(2, p) M(3, p)
#define IDLE(p)		(AWAY(1, p) && AWAY(2, p) && AWAY(3, p))
#define ALLQUIET	(QUIET(1) && QUIET(2) && QUIET(3))
#endif
#if P == 2
#define EACHP(M)	M(0) M(1)
#define EACHWP(M)	EACHWOF(M, 0) EACHWOF(M, 1)
#elif P == 3
#define EACHP(M)	M(0) M(1) M(2)
#define EACHWP(M)	EACHWOF(M, 0) EACHWOF(M, 1) EACHWOF(M, 2)
#endif
#if G == 3
#define EACHG(M, w, p)	M(w, p, 0) M(w, p, 1) M(w, p, 2)
#elif G == 4
#define EACHG(M, w, p)	M(w, p, 0) M(w, p, 1) M(w, p, 2) M(w, p, 3)
#endif
#define PRESENT(w, p, g) (state[w] == SENT && at[w] == p && gen[p] == g)

#define STEP_SEND(w, p) \
	:: d_step { state[w] == OPEN && up[p]; mayGo(w); if :: ok -> send(w, p) :: else fi; ok = false }
#define STEP_EXECUTE(w)	:: d_step { state[w] == SENT && MINE(w) == ALIVE; execute(w) }
#define STEP_ACK(w)	:: d_step { state[w] == SENT && MINE(w) == DONE; acknowledge(w) }
#define STEP_AGAIN(w)	:: d_step { state[w] == SENT; again(w) }
#define STEP_MOVE(w)	:: d_step { state[w] == SENT; move(w) }
#define STEP_ANSWER(w, p) \
	:: d_step { logged[p] && ghost[X(w, p, gen[p])] && !PRESENT(w, p, gen[p]); answerLate(w, p) }
#define STEP_FAIL(w)	:: d_step { state[w] == OPEN; fail(w) }
#define STEP_LATE(w, p, g) \
	:: d_step { copy[X(w, p, g)] == ALIVE && !PRESENT(w, p, g); executeLate(w, p, g) }
#define STEP_TIMEOUT(w, p, g)	:: d_step { ghost[X(w, p, g)]; timeout_(w, p, g) }
#define STEPS_LATE(w, p)	EACHG(STEP_LATE, w, p)
#define STEPS_TIMEOUT(w, p)	EACHG(STEP_TIMEOUT, w, p)
#define STEP_LOSE(p)	:: d_step { logged[p]; lose(p) }
#define STEP_PROOF(p)	:: d_step { !logged[p] && gen[p] < G - 1; login(p, true) }
#define STEP_LOGIN(p)	:: d_step { !logged[p] && gen[p] < G - 1; login(p, false) }
#define STEP_CHECK(p)	:: d_step { logged[p] && !up[p]; check(p) }
#define STEP_DOUBT(p)	:: d_step { up[p]; doubt(p) }
#define STEP_LEAVE(p)	:: d_step { logged[p] && !up[p] && IDLE(p); leave(p) }
#define STEP_EARLIER(p)	:: d_step { earlier[p]; timeoutEarlier(p) }

init {
	d_step {
		for (i : 0 .. P - 1) { fresh[i] = true }
		i = 0
	}
end:	do
#ifdef OTHER
	:: d_step { next <= W && !others; submit() }
	:: d_step { !others && !unsure && ALLQUIET; next = W + 1; other() }
#else
	:: d_step { next <= W; submit() }
#endif
	EACHWP(STEP_SEND)
	EACHW(STEP_EXECUTE)
	EACHW(STEP_ACK)
	EACHW(STEP_AGAIN)
	EACHW(STEP_MOVE)
	EACHWP(STEP_ANSWER)
	EACHW(STEP_FAIL)
	EACHWP(STEPS_LATE)
	EACHWP(STEPS_TIMEOUT)
	EACHP(STEP_LOSE)
	EACHP(STEP_PROOF)
	EACHP(STEP_LOGIN)
	EACHP(STEP_CHECK)
	EACHP(STEP_DOUBT)
	EACHP(STEP_LEAVE)
	EACHP(STEP_EARLIER)
	:: d_step { crashes < CRASHES; crash() }
	od
}
