package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// errGone tells that no process listens on a control socket any more.
var errGone = errors.New("no process answers on the control socket")

// controlCall sends one request to the device called name and decodes the
// answer into out. It takes no longer than a few seconds.
func controlCall(ctx context.Context, dir, name, method, path string, in, out any) error {
	return controlCallWithin(ctx, 2*controlTimeout, dir, name, method, path, in, out)
}

// controlCallWithin is controlCall with more time.
func controlCallWithin(ctx context.Context, limit time.Duration, dir, name, method, path string, in, out any) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	socket := filepath.Join(dir, name+controlSuffix)
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		},
	}}
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://iscsimp"+path, body)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	switch {
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ENOENT):
		return fmt.Errorf("%s: %w", name, errGone)
	case errors.Is(err, context.DeadlineExceeded):
		return failf(exitTimeout, "the process of device %s does not answer within %v", name, limit)
	case errors.Is(err, fs.ErrPermission):
		return notYours(name, &fs.PathError{Op: "connect", Path: socket, Err: fs.ErrPermission})
	case err != nil:
		if u, ok := errors.AsType[*url.Error](err); ok { // that it is HTTP is nobody's business
			err = u.Err
		}
		if _, ok := errors.AsType[*exitErr](err); ok { // the caller's time is up
			return err
		}
		return fmt.Errorf("device %s: %w", name, err)
	}
	defer resp.Body.Close()
	return decodeAnswer(name, resp, out)
}

func decodeAnswer(name string, resp *http.Response, out any) error {
	b, err := io.ReadAll(io.LimitReader(resp.Body, 16<<20))
	if err != nil {
		return fmt.Errorf("device %s: %w", name, err)
	}
	if resp.StatusCode/100 != 2 {
		var a controlAnswer
		if json.Unmarshal(b, &a) != nil || a.Error == "" {
			return failf(exitError, "device %s answers %s", name, resp.Status)
		}
		return failf(max(a.Code, exitError), "%s", a.Error)
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(b, out); err != nil {
		return fmt.Errorf("device %s: its answer cannot be read: %w", name, err)
	}
	return nil
}

// statusOf asks one device. ok is false if no such device runs; what a dead
// process left behind is removed.
func statusOf(ctx context.Context, dir, name string) (st deviceStatus, ok bool) {
	err := controlCall(ctx, dir, name, http.MethodGet, "/v1/status", nil, &st)
	if err == nil {
		st.Name = name // by which it can be found, whatever it says
		return st, true
	}
	holder, running := holderOf(dir, name)
	if !running {
		if errors.Is(err, errGone) {
			removeStale(dir, name)
		}
		return deviceStatus{}, false
	}
	return notAnswering(name, holder), true
}

// runningDevices asks all devices at once, so that one that hangs costs its
// own time only.
func runningDevices(ctx context.Context, dir string) ([]deviceStatus, error) {
	names, err := runningNames(dir)
	if err != nil {
		return nil, err
	}
	found := make([]*deviceStatus, len(names))
	var wg sync.WaitGroup
	for i, name := range names {
		wg.Go(func() {
			if st, ok := statusOf(ctx, dir, name); ok {
				found[i] = &st
			}
		})
	}
	wg.Wait()
	devices := []deviceStatus{}
	for _, st := range found {
		if st != nil {
			devices = append(devices, *st)
		}
	}
	return devices, nil
}
