package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/iscsimp/iscsimp/nbd"
)

// The control socket speaks HTTP with JSON bodies:
//
//	GET  /v1/status            → deviceStatus
//	POST /v1/logout  {force}   → 202; the process ends soon after
//	POST /v1/path    {path, action, value}
//	POST /v1/reserve {action, …}     → reserveReport
//
// An error is {"error": "…", "code": exit code}.

// controlTimeout is how long an answer may take; none waits for I/O. Tests
// shorten it.
var controlTimeout = 2 * time.Second

const maxControlBody = 64 << 10

// controlled is what the control socket can do with a device. Its methods come
// from many goroutines and must not wait for I/O.
type controlled interface {
	status(ctx context.Context) (deviceStatus, error)
	steer(ctx context.Context, cmd pathCommand) error
	// reserve, alone of all, may wait for I/O.
	reserve(ctx context.Context, cmd reserveCommand) (reserveReport, error)
	// logout asks the process to leave, and returns at once.
	logout(force bool)
}

// logoutCommand is the body of POST /v1/logout.
type logoutRequest struct {
	Force bool `json:"force"` // do not wait for I/O
}

// pathCommand is the body of POST /v1/path.
type pathCommand struct {
	Path   string `json:"path,omitempty"` // the path's id, or its portal; none with policy and failback
	Action string `json:"action"`         // up, down, priority, weight; policy, failback
	Value  string `json:"value,omitempty"`
}

// controlAnswer is the answer to a POST, and to anything that fails.
type controlAnswer struct {
	PID   int    `json:"pid,omitempty"`
	Error string `json:"error,omitempty"`
	Code  int    `json:"code,omitempty"`
}

// controlServer answers on a device's control socket.
type controlServer struct {
	http     *http.Server
	listener net.Listener
	served   chan struct{}
}

// listenControl opens the control socket at path, mode 0600. What a dead
// process left there is replaced.
func listenControl(path string, dev controlled) (*controlServer, error) {
	l, err := nbd.ListenUnix(path)
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	s := &controlServer{
		listener: l,
		served:   make(chan struct{}),
		http: &http.Server{
			Handler:           controlHandler(dev),
			ReadHeaderTimeout: controlTimeout,
			ReadTimeout:       controlTimeout,
			WriteTimeout:      2 * controlTimeout,
			IdleTimeout:       controlTimeout,
			MaxHeaderBytes:    16 << 10,
			ErrorLog:          log.New(io.Discard, "", 0), // what clients do wrong is not this log's business
		},
	}
	s.http.SetKeepAlivesEnabled(false)
	go func() {
		defer close(s.served)
		_ = s.http.Serve(l) // ends by close only
	}()
	return s, nil
}

// close stops answering and removes the socket. Requests under way get a
// moment to finish.
func (s *controlServer) close() {
	ctx, cancel := context.WithTimeout(context.Background(), controlTimeout)
	defer cancel()
	if s.http.Shutdown(ctx) != nil {
		s.http.Close()
	}
	<-s.served
}

func controlHandler(dev controlled) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), controlTimeout)
		defer cancel()
		st, err := dev.status(ctx)
		answer(w, st, err)
	})
	mux.HandleFunc("POST /v1/logout", func(w http.ResponseWriter, r *http.Request) {
		var req logoutRequest
		err := readBody(w, r, &req)
		if err == nil {
			dev.logout(req.Force)
		}
		answer(w, controlAnswer{PID: os.Getpid()}, err)
	})
	mux.HandleFunc("POST /v1/reserve", handleReserve(dev))
	mux.HandleFunc("POST /v1/path", func(w http.ResponseWriter, r *http.Request) {
		var cmd pathCommand
		err := readBody(w, r, &cmd)
		if err == nil {
			ctx, cancel := context.WithTimeout(r.Context(), controlTimeout)
			defer cancel()
			err = dev.steer(ctx, cmd)
		}
		answer(w, controlAnswer{PID: os.Getpid()}, err)
	})
	return mux
}

// readBody reads a request's JSON body; an empty one leaves v as it is.
func readBody(w http.ResponseWriter, r *http.Request, v any) error {
	dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxControlBody))
	if err := dec.Decode(v); err != nil && !errors.Is(err, io.EOF) {
		return usagef("the request is not the JSON object it should be: %v", err)
	}
	return nil
}

// answer writes v, or err with its exit code.
func answer(w http.ResponseWriter, v any, err error) {
	status := http.StatusOK
	if err != nil {
		v, status = controlAnswer{Error: err.Error(), Code: exitCode(err)}, http.StatusInternalServerError
		switch exitCode(err) {
		case exitInvalid:
			status = http.StatusBadRequest
		case exitNoDevice:
			status = http.StatusNotFound
		}
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // a client that went away needs no answer
}
