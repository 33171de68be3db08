// Package scsi speaks the SCSI command set an initiator for disks needs: it
// builds command descriptor blocks, parses and appends the data they return
// (INQUIRY, vital product data, capacities, mode pages, LBA status, target port
// groups, reservations), reads sense data, and says what an error asks for and
// whether two paths lead to the same logical unit.
//
// It knows nothing of iSCSI: no PDU, no session, no network, no clock, no
// goroutine, and imports the standard library only. Sending commands, counting
// retries and choosing paths belong to its callers.
//
// Every parser checks each length before use and never panics, whatever the
// target sent. Data that was cut short but holds what is asked for is accepted;
// otherwise the error is a *FormatError that wraps ErrShort or ErrMalformed.
// Everything is safe for concurrent use as long as the caller does not change
// a value another goroutine reads.
//
// References are to the standards SAM-5, SPC-4, SPC-5, SBC-3 and SBC-4 of INCITS
// T10. Commands, pages and fields bear the standards' own names; section numbers
// are left out, for they change from draft to draft.
package scsi
