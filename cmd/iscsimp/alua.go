package main

import (
	"fmt"
	"strings"
)

// aluaCell is the access state of a path's target port group, and its number;
// a star marks the one that the target prefers.
func aluaCell(p pathStatus) string {
	if p.ALUAState == "" {
		return "-"
	}
	s := strings.TrimPrefix(p.ALUAState, "active/")
	if p.ALUAGroup > 0 {
		s += fmt.Sprintf("(%d)", p.ALUAGroup)
	}
	if p.ALUAPreferred {
		s += "*"
	}
	return s
}

// aluaWords say what an access state means for I/O.
var aluaWords = map[string]string{
	"active/optimized":     "the target wants I/O here",
	"active/non-optimized": "it works, but slower, and is used if no path is active/optimized",
	"lba-dependent":        "some blocks are faster here, and some elsewhere",
	"standby":              "the target takes no I/O here until it changes that",
	"unavailable":          "the target takes next to no commands here",
	"transitioning":        "the target is about to change it, and takes no I/O meanwhile",
	"offline":              "the target says that these ports are gone",
	"unknown":              "the target did not tell; it is used like an optimized one",
}

// aluaFact says what the target tells of its ports.
func aluaFact(p pathStatus) string {
	if p.ALUAState == "" {
		return ""
	}
	s := "Access by ALUA"
	if p.ALUAGroup > 0 {
		s += fmt.Sprintf(": target port group %d", p.ALUAGroup)
	}
	s += fmt.Sprintf(": %s", p.ALUAState)
	if p.ALUASinceSeconds > 0 {
		s += fmt.Sprintf(" for %s", formatAge(p.ALUASinceSeconds))
	}
	if words := aluaWords[p.ALUAState]; words != "" {
		s += ": " + words
	}
	if p.ALUAPreferred {
		s += "; the target prefers this group"
	}
	return s + "."
}
