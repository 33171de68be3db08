package tcpproxy

import (
	"net"
	"time"
)

// A narrow line holds back at most queuedTime of bytes, at least one read's worth, and may send burstTime of bytes at once: timers are not exact, and what one
// wakes up too late for is made good by the next.
const (
	queuedTime = 50 * time.Millisecond
	burstTime  = 20 * time.Millisecond
)

// room is how many bytes one direction may hold back at this moment.
func (p *Proxy) room() int {
	rate := p.limit()
	if rate == 0 {
		return maxQueuedBytes
	}
	return min(int(rate*int64(queuedTime)/int64(time.Second))+1, maxQueuedBytes)
}

// bucket paces one direction of one connection; the zero value is ready for use.
type bucket struct {
	free time.Time // when the line is through with what was sent so far
}

// take says how long to wait before n bytes may be sent at a rate, and counts them as sent then.
func (b *bucket) take(now time.Time, n int, rate int64) time.Duration {
	if earliest := now.Add(-burstTime); b.free.Before(earliest) {
		b.free = earliest
	}
	wait := b.free.Sub(now)
	b.free = b.free.Add(time.Duration(int64(n) * int64(time.Second) / rate))
	return max(wait, 0)
}

// writePiece sends bytes as fast as the line is wide; each part is counted before it is sent, so that whoever got an answer finds its request counted.
func (p *Proxy) writePiece(b *bucket, l *link, to *net.TCPConn, bytes []byte, counter *int64) error {
	for len(bytes) > 0 {
		part := bytes
		if rate := p.limit(); rate > 0 {
			part = part[:min(len(part), max(int(rate/200), 1))]
			if wait := b.take(time.Now(), len(part), rate); wait > 0 {
				select {
				case <-time.After(wait):
				case <-l.done:
					return net.ErrClosed
				}
			}
			if !p.waitUnstalled(l) {
				return net.ErrClosed
			}
		}
		p.count(counter, len(part))
		if _, err := to.Write(part); err != nil {
			return err
		}
		bytes = bytes[len(part):]
	}
	return nil
}
