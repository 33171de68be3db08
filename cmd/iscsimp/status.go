package main

import (
	"encoding/json"
	"os"
	"strconv"
	"time"

	"github.com/iscsimp/iscsimp/scsi"
)

// lunJSON is a LUN in JSON: a number, or a string for the rare address that is
// not written as one.
type lunJSON scsi.LUN

func (l lunJSON) String() string { return scsi.LUN(l).String() }

// MarshalJSON implements json.Marshaler.
func (l lunJSON) MarshalJSON() ([]byte, error) {
	s := l.String()
	if _, err := strconv.Atoi(s); err == nil {
		return []byte(s), nil
	}
	return json.Marshal(s)
}

// UnmarshalJSON implements json.Unmarshaler.
func (l *lunJSON) UnmarshalJSON(b []byte) error {
	s := string(b)
	if len(b) > 0 && b[0] == '"' {
		if err := json.Unmarshal(b, &s); err != nil {
			return err
		}
	}
	lun, err := scsi.ParseLUN(s)
	*l = lunJSON(lun)
	return err
}

// devicesReport is what `paths` and `ls` print with --json.
type devicesReport struct {
	Version int            `json:"version"`
	Devices []deviceStatus `json:"devices"`
}

// deviceStatus is one device as its process sees it, and the answer to
// GET /v1/status. Sizes are in bytes, durations in seconds.
type deviceStatus struct {
	Name          string   `json:"name"`
	Target        string   `json:"target"`
	LUN           lunJSON  `json:"lun"`
	State         string   `json:"state"` // starting, up, degraded, no-path, closing, closed, not-answering
	PID           int      `json:"pid"`
	InitiatorName string   `json:"initiator_name,omitempty"`
	Started       string   `json:"started,omitempty"`
	UptimeSeconds float64  `json:"uptime_seconds"`
	SizeBytes     uint64   `json:"size_bytes"`
	BlockSize     uint32   `json:"block_size"`
	ReadOnly      bool     `json:"read_only"`
	Shared        bool     `json:"shared"`
	Identity      string   `json:"identity,omitempty"`
	Vendor        string   `json:"vendor,omitempty"`
	Product       string   `json:"product,omitempty"`
	Policy        string   `json:"policy"`
	Failback      string   `json:"failback"` // immediate, manual, or "after" and a time
	Exports       []string `json:"exports"`
	// Key is what this host is registered with at the unit, Reserved the type of the
	// reservation it made; Preempted says why every request fails since it was
	// fenced off.
	Key        string `json:"key,omitempty"`
	Reserved   string `json:"reserved,omitempty"`
	Preempted  string `json:"preempted,omitempty"`
	PathsUp    int    `json:"paths_up"`
	PathsTotal int    `json:"paths_total"`

	InFlight  int    `json:"in_flight"` // commands
	Queued    int    `json:"queued"`    // commands that wait for a path
	Requests  uint64 `json:"requests"`  // since the start
	Failed    uint64 `json:"failed"`    // requests given up
	LastError string `json:"last_error,omitempty"`
	// NoPathSecondsLeft is until requests begin to fail; absent unless there
	// is no path and the time is limited; 0 once they fail.
	NoPathSecondsLeft *float64 `json:"no_path_seconds_left,omitempty"`

	// FailbackPending tells that I/O stays where it is although a better path is
	// back; FailbackSecondsLeft for how long, absent: until it is moved by hand.
	FailbackPending     bool     `json:"failback_pending,omitempty"`
	FailbackSecondsLeft *float64 `json:"failback_seconds_left,omitempty"`

	Fenced      []fencedRange `json:"fenced"` // the oldest 64
	FencedTotal int           `json:"fenced_total"`
	Fences      fenceCounts   `json:"fences"`
	Hedging     hedgeStatus   `json:"hedging"`
	Limits      deviceLimits  `json:"limits"`
	Paths       []pathStatus  `json:"paths"`
}

// fenceCounts is what the write fence did since the start.
type fenceCounts struct {
	Raised   uint64 `json:"raised"`    // writes of unknown outcome
	Settled  uint64 `json:"settled"`   // ... that were proven to be over, or timed out
	TimedOut uint64 `json:"timed_out"` // ... for which only --fence-timeout said so
	Waits    uint64 `json:"waits"`     // writes that had to wait for one
}

// deviceLimits is how long what may take, as configured. Durations in seconds.
type deviceLimits struct {
	CommandSeconds float64 `json:"command_timeout_seconds"`
	LUNReset       bool    `json:"lun_reset"` // between abort and the end of the session
	FenceSeconds   float64 `json:"fence_timeout_seconds"`
	NoPathSeconds  float64 `json:"no_path_timeout_seconds"` // 0: I/O fails at once; negative: no limit
}

// fencedRange is a write whose old copy may still land: writes to it wait.
type fencedRange struct {
	Path         string  `json:"path"` // where the old copy is
	Portal       string  `json:"portal"`
	Op           string  `json:"op"`
	OffsetBytes  uint64  `json:"offset_bytes"`
	LengthBytes  uint64  `json:"length_bytes"`
	SinceSeconds float64 `json:"since_seconds"`
	SecondsLeft  float64 `json:"seconds_left"` // until --fence-timeout
	// Moved: the path was silent but lives; SecondsLeft begins to run if it is lost.
	Moved bool `json:"moved,omitempty"`
}

// pathStatus is one way to the LUN.
type pathStatus struct {
	ID     string `json:"id"`
	Portal string `json:"portal"`
	State  string `json:"state"`
	Active bool   `json:"active"` // carries I/O now
	// HeldBack tells that it is better than the paths in use, and waits for failback.
	HeldBack      bool    `json:"held_back,omitempty"`
	Since         string  `json:"since"`
	SinceSeconds  float64 `json:"since_seconds"`
	Reason        string  `json:"reason"`
	Priority      int     `json:"priority"`
	Weight        int     `json:"weight"`
	Share         float64 `json:"share"`       // of the I/O of the last seconds, 0..1
	ShareTotal    float64 `json:"share_total"` // of all I/O since the start, 0..1
	IOs           uint64  `json:"ios"`
	Bytes         uint64  `json:"bytes"`
	IOPS          float64 `json:"iops"`
	MBps          float64 `json:"mbps"` // 10^6 bytes a second
	P50Seconds    float64 `json:"p50_seconds"`
	P99Seconds    float64 `json:"p99_seconds"`
	InFlight      int     `json:"in_flight"`
	OldestSeconds float64 `json:"oldest_seconds"` // age of the oldest command in flight
	Retries       uint64  `json:"retries"`
	Errors        uint64  `json:"errors"`
	Timeouts      uint64  `json:"timeouts"` // commands that grew too old
	Aborts        uint64  `json:"aborts"`   // ... and were asked to be aborted
	Resets        uint64  `json:"resets"`   // LUN resets asked for
	Moved         uint64  `json:"moved"`    // commands taken away while it was silent
	Probes        uint64  `json:"probes"`
	Logins        uint64  `json:"logins"`
	Losses        uint64  `json:"losses"`
	LastError     string  `json:"last_error,omitempty"`
	ISID          string  `json:"isid,omitempty"`
	LocalAddress  string  `json:"local_address,omitempty"`
	SentTo        string  `json:"sent_to,omitempty"` // where the portal sends logins
	TPGT          int     `json:"tpgt"`              // -1: not known
	Connections   int     `json:"connections"`       // logged in
	// Asymmetric access (ALUA), absent if the unit has none: "active/optimized",
	// "active/non-optimized", "lba-dependent", "standby", "unavailable",
	// "transitioning", "offline" or "unknown"; the target port group, and whether the
	// target prefers it.
	ALUAState        string  `json:"alua_state,omitempty"`
	ALUAGroup        int     `json:"alua_group,omitempty"`
	ALUAPreferred    bool    `json:"alua_preferred,omitempty"`
	ALUASinceSeconds float64 `json:"alua_since_seconds,omitempty"`
	// RetrySeconds is until the next try to log in; absent if none is planned.
	RetrySeconds   float64            `json:"retry_seconds,omitempty"`
	LoggingIn      bool               `json:"logging_in,omitempty"` // it is being tried now
	ConnectionList []connectionStatus `json:"connection_list,omitempty"`
	// LastLoss is about the session: why it was lost last, and how often it was.
	LastLoss   *targetNotice `json:"last_loss,omitempty"`
	LastReject *targetNotice `json:"last_reject,omitempty"`
	LastAsync  *targetNotice `json:"last_async,omitempty"`

	Hedged uint64     `json:"hedged"` // reads on it that were sent over another path too
	Polls  uint64     `json:"polls"`  // probes that changed nothing: TEST UNIT READY while idle, reads on probation
	Health pathHealth `json:"health"`
	Cost   pathCost   `json:"cost"`
}

// connectionStatus is one TCP connection of a path's session.
type connectionStatus struct {
	CID              int     `json:"cid"`
	State            string  `json:"state"` // up, joining, waiting, clean-up
	LocalAddress     string  `json:"local_address,omitempty"`
	OutstandingBytes int     `json:"outstanding_bytes"` // with 4096 for each command: the fewest gets the next one
	LatencySeconds   float64 `json:"latency_seconds"`
	Silent           bool    `json:"silent"`
	RetrySeconds     float64 `json:"retry_seconds,omitempty"`
}

// targetNotice is something that came on its own: a Reject, an asynchronous message,
// the loss of the session.
type targetNotice struct {
	Text         string  `json:"text"`
	Count        uint64  `json:"count"`
	SinceSeconds float64 `json:"since_seconds"`
}

// pathCost is how the latency policy rates the path for a read of 4 KiB: the
// latency, or by how much the oldest command is overdue if that is more, the time
// its bytes need, and twice the time of those before it, since it will hold up
// others in its turn.
type pathCost struct {
	TotalSeconds   float64 `json:"total_seconds"`
	LatencySeconds float64 `json:"latency_seconds"`       // of a read without length on an empty path
	WriteSeconds   float64 `json:"write_latency_seconds"` // of a write without length
	OldestSeconds  float64 `json:"oldest_seconds"`        // age of the oldest read or write in flight
	LateSeconds    float64 `json:"late_seconds"`          // by how much that is overdue
	QueueSeconds   float64 `json:"queue_seconds"`         // that those in flight need before it
	EachSeconds    float64 `json:"per_command_seconds"`   // of it, for each command; 0: none or not known
	InFlight       int     `json:"in_flight"`
	QueuedBytes    int     `json:"queued_bytes"`
	BytesPerSecond float64 `json:"bytes_per_second"` // 0: not known
	Limit          int     `json:"limit"`            // of commands in flight, after TASK SET FULL; 0: none
	Ramp           int     `json:"ramp"`             // of commands in flight, while it starts; 0: none
	Known          bool    `json:"known"`            // false: nothing was measured yet
}

// stateNotAnswering is the state of a device whose process does not answer.
const stateNotAnswering = "not-answering"

// notAnswering describes a device by its lock file alone.
func notAnswering(name string, c claim) deviceStatus {
	return deviceStatus{
		Name: name, Target: c.Target, LUN: c.LUN, PID: c.PID, Started: c.Started,
		State: stateNotAnswering, Exports: []string{}, Fenced: []fencedRange{}, Paths: []pathStatus{},
	}
}

// processStart is when this process began, near enough.
var processStart = time.Now()

// stampProcess fills in what every device of this process shares.
func (d *deviceStatus) stampProcess() {
	d.PID = os.Getpid()
	d.Started = formatTime(processStart)
	d.UptimeSeconds = time.Since(processStart).Seconds()
}
