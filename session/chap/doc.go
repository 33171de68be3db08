// Package chap is the CHAP exchange of an iSCSI login (RFC 7143 §9.2.1, §12.1.3;
// RFC 1994) as two pure state machines, one for each side: the peer's keys go in,
// the text to answer with comes out. It knows no socket and nothing of the login
// around it: AuthMethod, stages, split text and timeouts belong to the caller,
// which must close the connection after any error of this package.
//
// # Which algorithms to offer
//
// §12.1.3 demands that MD5 (5) is always offered. The others come from IANA's
// registry of PPP authentication algorithms: SHA1 (6), SHA256 (7), SHA3-256 (8).
// The default is "8,5,7", and the order has reasons:
//
//   - SHA3-256 first. Its responses cannot be extended to those of longer
//     challenges, as those of the three others can, and no target is known that
//     means something else by 8.
//   - MD5 before SHA256. tgtd takes the first number of the list that it knows,
//     and by 7 it means SHA-1: "7,5" fails there, "8,5,7" logs in with MD5. What
//     is lost is little. No attack on CHAP with MD5 is known that is better than
//     guessing the secret off-line, which every one of these algorithms permits;
//     random secrets of 96 bits or more are what protects.
//   - SHA256 last, for targets that have no MD5 at all, such as those in FIPS mode.
//   - SHA1 is left out: no target is known that has it and none of the others.
//
// Who lists SHA256 before MD5 can still log in to tgtd with [Fallback], which
// says when a second login that offers MD5 alone makes sense. Nothing is given
// away by it: the list is not protected against someone who can change it on its
// way, so whoever offers MD5 at all can be brought to use it. To rule MD5 out,
// leave it out of Config.Algorithms, against the letter of the RFC.
//
// # Reflection
//
// A target that does not know the secret may send us our own challenge, on
// another connection, to have it answered by us (§9.2.1 a to d). All logins of a
// process must therefore share one [Registry]. Besides, the secrets of the two
// directions must differ, and none may be the beginning of the other: CHAP hashes
// secret and challenge without a border between them, so with the secrets "abc"
// and "abcd" the challenge "d"+C under the first has the same response as C under
// the second, and a reflection would not look like one.
package chap
