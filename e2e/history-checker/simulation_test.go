package main

import (
	"fmt"
	"math/rand"
	"testing"
	"time"
)

// simulated is one register, used by clients at once as in a proof, and lost from in a takeover: what the checker is to call right.
type simulated struct {
	random *rand.Rand
	clock  int64
	value  int64
	state  int64
	// What it was, and since when.
	past    []operation
	history *history
}

const millisecond = int64(time.Millisecond)

// one operation takes effect at a moment between its call and its return; in an outage nobody is answered, and half of what was asked is done.
func (register *simulated) one(client int, outage bool) {
	random := register.random
	register.clock += random.Int63n(8 * millisecond)
	done := operation{Register: "a/1", Client: client, Does: put, Outcome: ok, Call: register.clock - random.Int63n(20*millisecond)}
	switch random.Intn(5) {
	case 0, 1:
		done.Does, done.Read = get, register.state
	case 2:
		done.Does = remove
	case 3:
		done.Does, done.Expects = replace, register.state
		if done.Expects == absent {
			done.Does = create
		}
	}
	if done.Does != get && done.Does != remove {
		register.value++
		done.Writes = register.value
	}
	if outage {
		done.Outcome = unknown
	}
	if !outage || random.Intn(2) == 0 {
		could, next := done.on(register.state)
		if !could {
			panic(fmt.Sprintf("%v on %d", done, register.state))
		}
		register.state = next
	}
	done.Return = register.clock + random.Int63n(20*millisecond)
	register.past = append(register.past, operation{Writes: register.state, Call: register.clock})
	register.history.registers["a/1"] = append(register.history.registers["a/1"], done)
}

func (register *simulated) many(count int, outage bool) {
	for number := range count {
		register.one(number%6, outage)
	}
}

// takeover loses the last of what was done, and names it or has it come back.
func (register *simulated) takeover() {
	lost := register.state
	after := register.clock
	register.clock += second
	register.many(4, true)
	// Of those that were not answered nothing was done.
	register.state = register.past[len(register.past)-10].Writes
	term := term{Epoch: int64(len(register.history.terms) + 2), After: after, At: register.clock, Back: register.clock}
	comesBack := register.random.Intn(2) == 0
	register.one(0, false)
	if last := register.history.registers["a/1"]; comesBack && last[len(last)-1].Does == get {
		register.clock += second
		register.state = lost
		register.history.about("a/1").enter("CameBack", "Restored")
	} else if lost == absent {
		register.history.about("a/1").enter("DeleteNotDone", "")
	} else {
		register.history.about("a/1").conflicts[lost] = true
	}
	register.history.terms = append(register.history.terms, term)
}

func simulate(seed int64, oneSite bool) *history {
	register := &simulated{
		random:  rand.New(rand.NewSource(seed)),
		clock:   second,
		history: &history{oneSite: oneSite, registers: map[string][]operation{}, named: map[string]*named{}},
	}
	for range 2 {
		register.many(150, false)
		if oneSite {
			register.takeover()
		} else {
			register.clock += second
			register.many(4, true)
		}
	}
	register.many(150, false)
	register.clock += second
	register.history.settled = register.clock
	register.clock += second
	last := operation{Register: "a/1", Does: get, Outcome: ok, Read: register.state, Call: register.clock, Return: register.clock + 1}
	register.history.registers["a/1"] = append(register.history.registers["a/1"], last)
	return register.history
}

func TestWhatCouldHaveHappenedIsNeverCalledWrong(t *testing.T) {
	for seed := range int64(20) {
		for _, oneSite := range []bool{true, false} {
			report, err := check(simulate(seed, oneSite), t.TempDir()+"/history.jsonl")
			if err != nil {
				t.Fatal(err)
			}
			if !report.well() {
				t.Errorf("seed %d, OneSite %v:\n%s", seed, oneSite, report)
			}
		}
	}
}

func TestAReadOfWhatWasReplacedIsFoundInALongHistory(t *testing.T) {
	for seed := range int64(10) {
		for _, oneSite := range []bool{true, false} {
			history := simulate(seed, oneSite)
			operations := history.registers["a/1"]
			// Of a value that was replaced long before, in the midst of the first stretch.
			for index := 75; ; index++ {
				if operations[index].Does == get {
					operations[index].Read = 1
					break
				}
			}
			report, err := check(history, t.TempDir()+"/history.jsonl")
			if err != nil {
				t.Fatal(err)
			}
			if report.well() {
				t.Errorf("seed %d, OneSite %v:\n%s", seed, oneSite, report)
			}
		}
	}
}
