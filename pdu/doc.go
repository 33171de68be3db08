// Package pdu is the iSCSI wire format of RFC 7143: the headers of all PDU
// types (§11), framing with digests (§11.2.3, §13.1) and key=value text (§6.1).
// What does not belong here: sockets, sessions, negotiation rules, sequence
// number windows, SCSI commands. It imports the standard library only.
//
// Every PDU type T comes as a pair. The struct T has all fields and AppendTo,
// which appends the 48-byte Basic Header Segment (BHS). TView is a byte slice
// with one getter per field, which reads a received header in place, and Decode,
// which turns it into a T. Neither direction allocates (as long as dst has room).
//
// The package checks every length of received bytes before using it and reports
// what is wrong as an error. It panics only on misuse by the calling program:
// lengths that do not fit their field, a header slice shorter than BHSLen.
//
// Reserved bits are sent as 0 and ignored on receipt (§11). Reserved code values
// are handed up as they are: each code type has a String method that shows them.
//
// Nothing here has state; all functions may be called concurrently as long as
// nobody writes to the memory involved.
package pdu
