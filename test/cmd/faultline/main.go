// Command faultline is a TCP proxy whose line can go bad on command: package tcpproxy for scripts.
//
//	faultline -listen 127.0.0.1:3360 -to 127.0.0.1:3260 -ctl /run/ctl.sock
//
// Commands, over HTTP on the control socket (curl --unix-socket CTL http://x/COMMAND):
//
//	go              forward (the state at the start)
//	delay?each=5ms  forward with this latency added in each direction; the throughput is not limited
//	stall           silence: connections stay open, new ones are accepted, no byte passes either way
//	reset           reset every connection now; new ones are forwarded
//	cut             reset every connection and refuse new ones until "go"
//	status          the state and counts
//
// Every command answers with the status. What does not belong here: faults that depend on what is in the bytes.
package main

import (
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/iscsimp/iscsimp/test/tcpproxy"
)

func main() {
	listen := flag.String("listen", "", "address to accept on")
	to := flag.String("to", "", "address to forward to")
	control := flag.String("ctl", "", "unix socket for commands")
	flag.Parse()
	log.SetFlags(0)
	proxy, err := tcpproxy.Open(*listen, *to)
	if err != nil {
		log.Fatal(err)
	}
	if err := os.Remove(*control); err != nil && !os.IsNotExist(err) {
		log.Fatal(err)
	}
	listener, err := net.Listen("unix", *control)
	if err != nil {
		log.Fatal(err)
	}
	server := http.Server{Handler: handler(proxy), ReadHeaderTimeout: 5 * time.Second}
	log.Fatal(server.Serve(listener))
}

// handler carries out the commands.
func handler(proxy *tcpproxy.Proxy) http.Handler {
	commands := map[string]func(*http.Request) error{
		"/go":     func(*http.Request) error { return proxy.Go() },
		"/stall":  func(*http.Request) error { return proxy.Stall() },
		"/cut":    func(*http.Request) error { return proxy.Cut() },
		"/reset":  func(*http.Request) error { proxy.Reset(); return nil },
		"/status": func(*http.Request) error { return nil },
		"/delay": func(r *http.Request) error {
			each, err := time.ParseDuration(r.FormValue("each"))
			if err != nil {
				return fmt.Errorf("%w; say delay?each=5ms", err)
			}
			return proxy.Delay(each)
		},
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		command := commands[r.URL.Path]
		if command == nil {
			http.Error(w, "unknown command; use go, delay?each=5ms, stall, reset, cut or status", http.StatusNotFound)
			return
		}
		if err := command(r); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		s := proxy.Stats()
		fmt.Fprintf(w, "%v delay=%v open=%d accepted=%d to-target=%d to-client=%d\n", s.Mode, s.Delay, s.Open, s.Accepted, s.ToTarget, s.ToClient)
	})
}
