package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"sort"
)

// absent is the state of a register whose key does not exist. No client writes it as a value.
const absent int64 = 0

// action is what a client asked for.
type action string

const (
	// get reads.
	get action = "get"
	// put writes whatever was there.
	put action = "put"
	// remove deletes, also what is not there.
	remove action = "delete"
	// create writes if nothing is there: If-None-Match: *.
	create action = "create"
	// replace writes if a certain value is there: If-Match.
	replace action = "replace"
)

// outcome is how it ended, as the package's comment has it.
type outcome string

const (
	ok      outcome = "ok"
	refused outcome = "refused"
	failed  outcome = "failed"
	unknown outcome = "unknown"
)

// operation is one request of one client. Times are nanoseconds of the recorder's monotonic clock.
type operation struct {
	Register string  `json:"register"`
	Client   int     `json:"client"`
	Does     action  `json:"does"`
	Writes   int64   `json:"writes"`
	Expects  int64   `json:"expects"`
	Read     int64   `json:"read"`
	Outcome  outcome `json:"outcome"`
	Call     int64   `json:"call"`
	Return   int64   `json:"return"`
}

// term is a change of the lease's holder. It was won between After, when the one before was seen last, and At, when it was seen first. From
// Back on the site that lost the lease may have been there again.
type term struct {
	Epoch   int64  `json:"epoch"`
	Site    string `json:"site"`
	Planned bool   `json:"planned"`
	After   int64  `json:"after"`
	At      int64  `json:"at"`
	Back    int64  `json:"back"`
}

// named is what the product itself says of a register at the end.
type named struct {
	// Values that are kept as conflict versions.
	conflicts map[int64]bool
	// Deletes that are in the ledger as not done.
	deletes int
	// The ledger says that something was not seen for a while, and came back.
	cameBack bool
	// Entries of the ledger, as a person reads them.
	ledger []string
}

// history is all that was recorded.
type history struct {
	oneSite bool
	terms   []term
	// When both sites had all of each other, with every client stopped. Then each register was read once more.
	settled   int64
	registers map[string][]operation
	named     map[string]*named
}

// line is any line of the file: Kind says which of the fields count.
type line struct {
	Kind string `json:"kind"`
	operation
	term
	Acknowledge string `json:"acknowledge"`
	Value       int64  `json:"value"`
	Entry       string `json:"entry"`
	Settled     string `json:"settled"`
}

// read reads a history that was recorded to its end.
func read(path string) (*history, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	read := &history{registers: map[string][]operation{}, named: map[string]*named{}}
	begun := false
	lines := bufio.NewScanner(bytes.NewReader(content))
	for number := 1; lines.Scan(); number++ {
		var line line
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			return nil, fmt.Errorf("line %d: %w", number, err)
		}
		switch {
		case line.Kind == "run" && (line.Acknowledge == "OneSite" || line.Acknowledge == "BothSites"):
			begun, read.oneSite = true, line.Acknowledge == "OneSite"
		case line.Kind == "operation" && line.operation.isSound():
			read.registers[line.Register] = append(read.registers[line.Register], line.operation)
		case line.Kind == "term":
			read.terms = append(read.terms, line.term)
		case line.Kind == "conflict":
			read.about(line.Register).conflicts[line.Value] = true
		case line.Kind == "ledger":
			read.about(line.Register).enter(line.Entry, line.Settled)
		case line.Kind == "settled":
			read.settled = line.At
		default:
			return nil, fmt.Errorf("line %d is none that is known: %s", number, lines.Text())
		}
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	if !begun || read.settled == 0 {
		return nil, fmt.Errorf("it has no line of kind run, or none of kind settled: its recording was broken off")
	}
	for register, operations := range read.registers {
		last := func(operation operation) bool {
			return operation.Does == get && operation.Outcome == ok && operation.Call > read.settled
		}
		if !slices.ContainsFunc(operations, last) {
			return nil, fmt.Errorf("%s was not read once more after all was settled: its recording was broken off", register)
		}
	}
	sort.Slice(read.terms, func(a, b int) bool { return read.terms[a].Epoch < read.terms[b].Epoch })
	return read, nil
}

func (operation *operation) isSound() bool {
	writes := operation.Does == put || operation.Does == create || operation.Does == replace
	known := writes || operation.Does == get || operation.Does == remove
	ended := operation.Outcome == unknown || operation.Return >= operation.Call
	switch operation.Outcome {
	case ok, failed, unknown:
		return known && ended && writes == (operation.Writes != absent)
	case refused:
		return ended && operation.Writes != absent && (operation.Does == create || operation.Does == replace)
	}
	return false
}

func (history *history) about(register string) *named {
	if history.named[register] == nil {
		history.named[register] = &named{conflicts: map[int64]bool{}}
	}
	return history.named[register]
}

func (named *named) enter(entry, settled string) {
	switch {
	case entry == "DeleteNotDone":
		named.deletes++
	case entry == "CameBack", entry == "Lost" && settled == "Restored":
		named.cameBack = true
	}
	if settled != "" {
		entry += " (" + settled + ")"
	}
	named.ledger = append(named.ledger, entry)
}

// names says whether the product keeps or notes what made the register so.
func (named *named) names(state int64) bool {
	if state == absent {
		return named.deletes > 0
	}
	return named.conflicts[state]
}
