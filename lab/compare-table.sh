#!/bin/bash
# The tables of compare.sh: result lines of measure/spread or measure/outage on stdin, Markdown on stdout.
case $1 in
spread) exec awk '
    function med(s,  a, n, i, j, v) { n = split(s, a, " ")
        for (i = 2; i <= n; i++) { v = a[i] + 0; for (j = i - 1; j > 0 && a[j] + 0 > v; j--) a[j + 1] = a[j]; a[j + 1] = v }
        return a[int((n + 1) / 2)] }
    { k = $1 " " $3; if (!(k in seen)) { seen[k] = 1; rows[++m] = k } if (!($2 in known)) { known[$2] = 1; cols[++c] = $2 }
      mbs[k, $2] = mbs[k, $2] " " $5; p50[k, $2] = p50[k, $2] " " $6; p99[k, $2] = p99[k, $2] " " $7; share[k, $2] = $10 }
    END {
        print "| scenario, job | policy or selector | MB/s | p50 ms | p99 ms | by path 2 | latency: x MB/s | latency: x p99 |"; print "|---|---|---|---|---|---|---|---|"
        for (i = 1; i <= m; i++) for (j = 1; j <= c; j++) { k = rows[i]; d = cols[j]; if (!((k, d) in mbs)) continue
            v = med(mbs[k, d]); q = med(p99[k, d]); us = med(mbs[k, "iscsimp:latency"]); uq = med(p99[k, "iscsimp:latency"])
            printf "| %s | %s | %.1f | %.2f | %.2f | %d %% | %s | %s |\n", k, d, v, med(p50[k, d]), q, share[k, d],
                d == "iscsimp:latency" ? "" : sprintf("%.2f", us / v), d == "iscsimp:latency" ? "" : sprintf("%.2f", uq / q) } }';;
outage) exec awk '
    { k = $1 " " $2; if (!(k in n)) rows[++m] = k; n[k]++; if ($3 > r[k]) r[k] = $3; if ($4 > w[k]) w[k] = $4; e[k] += $5; x[k] += $6 }
    END { print "| event | contestant | longest read s | longest write s | errors | wrong blocks | runs |"; print "|---|---|---|---|---|---|---|"
        for (i = 1; i <= m; i++) { k = rows[i]; split(k, p, " "); printf "| %s | %s | %.2f | %.2f | %d | %d | %d |\n", p[1], p[2], r[k], w[k], e[k], x[k], n[k] } }';;
*) echo "compare-table.sh spread|outage" >&2; exit 2;;
esac
