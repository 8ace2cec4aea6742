package main

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"
)

// patience is how long the search goes on for one register. One that is not decided by then counts as wrong.
const patience = 2 * time.Minute

// patienceForPlain is how long it is asked whether a register is linearizable that has been found explained. It is told apart for the report only.
const patienceForPlain = 5 * time.Second

// verdict is what became of one register.
type verdict string

const (
	linearizable verdict = "linearizable"
	explained    verdict = "explained"
	wrong        verdict = "NOT LINEARIZABLE"
	undecided    verdict = "UNDECIDED"
)

// finding is a register that is not plainly linearizable.
type finding struct {
	register string
	verdict  verdict
	// What names its losses, or where the counterexample is.
	words string
}

// report is what was found, for a person.
type report struct {
	verdicts map[verdict]int
	outcomes map[outcome]int
	terms    []term
	findings []finding
}

func (report *report) well() bool {
	return report.verdicts[wrong]+report.verdicts[undecided] == 0
}

// check judges every register; counterexamples are written beside the history.
func check(history *history, path string) (*report, error) {
	report := &report{verdicts: map[verdict]int{}, outcomes: map[outcome]int{}, terms: history.terms}
	for _, register := range slices.Sorted(maps.Keys(history.registers)) {
		operations := history.registers[register]
		for _, operation := range operations {
			report.outcomes[operation.Outcome]++
		}
		judged, err := judge(history, register, operations, path)
		if err != nil {
			return nil, err
		}
		report.verdicts[judged.verdict]++
		if judged.verdict != linearizable {
			report.findings = append(report.findings, judged)
		}
	}
	return report, nil
}

// judge asks first whether it could have happened at all, with losses where they are allowed.
func judge(history *history, register string, operations []operation, path string) (finding, error) {
	counted := effective(operations)
	model, events := plain, []porcupine.Operation(nil)
	if history.oneSite {
		counted = slices.DeleteFunc(counted, func(operation operation) bool { return inSwitch(operation, history.terms) })
		losses := lossesOf(history, register)
		model, events = losses.model(), losses.events
	}
	timed := make([]porcupine.Operation, len(counted))
	for index, operation := range counted {
		timed[index] = operation.timed()
	}
	all := append(slices.Clone(timed), events...)
	switch porcupine.CheckOperationsTimeout(model, all, patience) {
	case porcupine.Ok:
		if !history.oneSite || porcupine.CheckOperationsTimeout(plain, timed, patienceForPlain) == porcupine.Ok {
			return finding{register, linearizable, ""}, nil
		}
		return finding{register, explained, history.about(register).String()}, nil
	case porcupine.Unknown:
		return shown(register, undecided, model, all, path)
	default:
		return shown(register, wrong, model, all, path)
	}
}

// shown writes the counterexample: the longest orders that go well, and where each of them ends.
func shown(register string, verdict verdict, model porcupine.Model, all []porcupine.Operation, path string) (finding, error) {
	_, info := porcupine.CheckOperationsVerbose(model, all, patience)
	page := strings.TrimSuffix(path, filepath.Ext(path)) + "-" + strings.ReplaceAll(register, "/", "-") + ".html"
	return finding{register, verdict, "see " + page}, porcupine.VisualizePath(model, info, page)
}

func (named *named) String() string {
	var words []string
	if len(named.conflicts) > 0 {
		words = append(words, fmt.Sprintf("conflict versions %v", slices.Sorted(maps.Keys(named.conflicts))))
	}
	if len(named.ledger) > 0 {
		words = append(words, "ledger: "+strings.Join(named.ledger, ", "))
	}
	return strings.Join(words, "; ")
}

func (report *report) String() string {
	var text strings.Builder
	for _, found := range report.findings {
		fmt.Fprintf(&text, "%s: %s: %s\n", found.register, found.verdict, found.words)
	}
	for _, term := range report.terms {
		how := "taken over"
		if term.Planned {
			how = "switched"
		}
		fmt.Fprintf(&text, "epoch %d: %s, %s\n", term.Epoch, term.Site, how)
	}
	operations := 0
	for _, count := range report.outcomes {
		operations += count
	}
	fmt.Fprintf(&text, "%d operations: %d ok, %d refused, %d failed, %d unknown\n", operations,
		report.outcomes[ok], report.outcomes[refused], report.outcomes[failed], report.outcomes[unknown])
	registers := 0
	for _, count := range report.verdicts {
		registers += count
	}
	fmt.Fprintf(&text, "%d registers: %d linearizable, %d explained by losses, %d not linearizable, %d undecided", registers,
		report.verdicts[linearizable], report.verdicts[explained], report.verdicts[wrong], report.verdicts[undecided])
	return text.String()
}
