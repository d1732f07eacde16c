# Makes of the figures of benches/compare/engines a table in Markdown, or with -v plot=1 a picture in SVG. Fields, between tabs:
# file system, scenario, who, engine, packet length, connections, durable, round, bytes, seconds, processor seconds, KiB,
# processor seconds of what relays. A ratio is that of two figures of one round.

BEGIN { FS = "\t" }

{
  row = $1 FS $2 FS $3 FS $4 FS $5 FS $6 FS $7
  if (!(row in runs)) order[++rows] = row
  runs[row]++
  at = row FS runs[row]
  round[at] = $8
  rate[at] = $9 / $10 / 1e9
  cost[at] = $11 / $9 * 1e9
  memory[at] = $12 / 1024
  if ($13 != "-") relay[at] = $13 / $9 * 1e9
  if ($3 == "control" || $3 == "rsync") {
    peer_rate[$1, $2, $3, $7, $8] = rate[at]
    peer_cost[$1, $2, $3, $7, $8] = cost[at]
  }
}

END {
  if (plot) draw(); else table()
}

# Sets m, least and most from the figures[1..count].
function spread(figures, count,    i, j, figure) {
  for (i = 2; i <= count; i++) {
    figure = figures[i]
    for (j = i - 1; j >= 1 && figures[j] > figure; j--) figures[j + 1] = figures[j]
    figures[j + 1] = figure
  }
  m = figures[int((count + 1) / 2)]; least = figures[1]; most = figures[count]
}

# What has the median of a row's figures, with least and most.
function of_row(row, what,    i, count, figures) {
  for (i = 1; i <= runs[row]; i++) if ((row FS i) in what) figures[++count] = what[row FS i]
  if (!count) return 0
  spread(figures, count)
  return 1
}

# The same of the ratios to what a peer had in the same round, on disk like it where it was asked to be.
function of_ratio(row, what, peer, name,    i, count, figures, f, key) {
  split(row, f, FS)
  for (i = 1; i <= runs[row]; i++) {
    key = f[1] SUBSEP f[2] SUBSEP name SUBSEP f[7] SUBSEP round[row FS i]
    if (!(key in peer)) key = f[1] SUBSEP f[2] SUBSEP name SUBSEP "no" SUBSEP round[row FS i]
    if (key in peer) figures[++count] = what[row FS i] / peer[key]
  }
  if (!count) return 0
  spread(figures, count)
  return 1
}

function text(format, found) {
  if (!found) return ""
  return sprintf(format " (" format "-" format ")", m, least, most)
}

function name(row,    f, who) {
  split(row, f, FS)
  who = f[3]
  if (f[4] != "-") who = who ", " f[4]
  if (f[5] != "-") who = who ", N = " f[5]
  if (f[6] > 1) who = who ", " f[6] " links"
  if (f[7] == "yes" && (f[3] == "control" || f[3] == "rsync" || f[3] == "push")) who = who ", fsync"
  return who
}

function table(    i, row, f, last) {
  for (i = 1; i <= rows; i++) {
    row = order[i]
    split(row, f, FS)
    if (f[1] FS f[2] != last) {
      print "\n" f[2] ", " f[1] ":\n"
      print "| | GB/s | x control | x rsync | processor s/GB | x rsync |" (f[2] == "relay" ? " of which relay |" : "") " MiB |"
      print "|---|---|---|---|---|---|" (f[2] == "relay" ? "---|" : "") "---|"
      last = f[1] FS f[2]
    }
    printf "| %s | %s |", name(row), text("%.2f", of_row(row, rate))
    printf " %s | %s |", text("%.2f", of_ratio(row, rate, peer_rate, "control")), text("%.2f", of_ratio(row, rate, peer_rate, "rsync"))
    printf " %s | %s |", text("%.2f", of_row(row, cost)), text("%.2f", of_ratio(row, cost, peer_cost, "rsync"))
    if (f[2] == "relay") printf " %s |", text("%.2f", of_row(row, relay))
    of_row(row, memory)
    printf " %.0f |\n", m
  }
}

# Two bars a row: throughput, and what it costs; a line across the end of each from the least to the most.
function draw(    i, y, row, f, last, rate_max, cost_max, ours) {
  for (i = 1; i <= rows; i++) {
    of_row(order[i], rate); if (most > rate_max) rate_max = most
    of_row(order[i], cost); if (most > cost_max) cost_max = most
    split(order[i], f, FS)
    y += 18 + (f[1] FS f[2] != last ? 30 : 0)
    last = f[1] FS f[2]
  }
  print "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"860\" height=\"" y + 66 "\" font-family=\"sans-serif\" font-size=\"12\">"
  print "<rect width=\"100%\" height=\"100%\" fill=\"white\"/>"
  print "<text x=\"12\" y=\"20\" font-size=\"11\">" title "</text>"
  print "<text x=\"230\" y=\"42\" font-weight=\"bold\">GB/s</text><text x=\"560\" y=\"42\" font-weight=\"bold\">processor seconds per GB, all processes</text>"
  y = 36; last = ""
  for (i = 1; i <= rows; i++) {
    row = order[i]
    split(row, f, FS)
    if (f[1] FS f[2] != last) {
      y += 30
      print "<text x=\"12\" y=\"" y - 3 "\" font-weight=\"bold\">" f[2] ", " f[1] "</text>"
      last = f[1] FS f[2]
    }
    ours = f[4] != "-"
    print "<text x=\"222\" y=\"" y + 13 "\" text-anchor=\"end\">" name(row) "</text>"
    of_row(row, rate); bar(230, 270 / rate_max, y, ours)
    of_row(row, cost); bar(560, 240 / cost_max, y, ours)
    y += 18
  }
  print "</svg>"
}

function bar(x, scale, y, ours) {
  printf "<rect x=\"%d\" y=\"%d\" width=\"%.1f\" height=\"13\" fill=\"%s\"/>", x, y + 2, m * scale, ours ? "#4477aa" : "#bbbbbb"
  printf "<line x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\" stroke=\"black\"/>", x + least * scale, x + most * scale, y + 8.5, y + 8.5
  printf "<text x=\"%.1f\" y=\"%d\" font-size=\"10\">%.2f</text>\n", x + most * scale + 4, y + 12, m
}
