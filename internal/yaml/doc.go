// Package yaml reads the part of YAML 1.2 that a configuration file needs, and
// refuses the rest with an error that names the line and says what to write
// instead. What it accepts means the same to every full YAML parser.
//
// The part is:
//
//	# comments, on lines of their own or after a blank
//	key: value                     maps, by indentation with spaces
//	"key: with colon": value       keys and values in double or single quotes
//	list:
//	  - value                      lists, also of maps
//	short: [a, "b, c"]             lists and maps on one line
//	empty:                         no value
//
// Not in it: tabs outside comments, several documents, directives, anchors and
// aliases, tags, values over several lines, block scalars (| and >), keys that are
// not plain or quoted scalars, duplicate keys, and lists directly in lists except
// on one line. Values have no types: a number or a truth value is the text it is
// written as, for the reader to judge.
//
// What does not belong here: what the keys mean (cmd/iscsimp).
package yaml
