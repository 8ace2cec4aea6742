// history-checker reads what clients of registers did and saw while sites died and were switched (one S3 key a register, recorded by
// e2e/src/history as JSON lines), and says of each register whether it could have been one register in one place: Porcupine searches for
// an order of its operations in which each takes effect at one moment between its call and its return. Where there is none, the
// counterexample is written beside the history as a page for a browser.
//
// What an operation may have done follows from its outcome:
//
//	ok       it took effect
//	refused  a conditional write that found another state than it asked for: it read that, and wrote nothing
//	failed   it surely did nothing; it is left out
//	unknown  it may take effect at any moment after its call, or never: its return is at infinity
//
// With BothSites that is all: every register must be linearizable.
//
// With OneSite a site acknowledges alone, so a takeover can lose what it acknowledged last. Then a register that is not linearizable must be
// explained. Three more things may happen to it, each once for a term that was won without a planned switch (losses.go):
//
//   - it gives way: from what it was when the term before was last seen, or a little earlier, its state goes back to an older state of
//     that time;
//   - what gave way comes back, as long as nobody has written over what stood in its place, or nothing did and nothing is there;
//   - at the end all is accounted for: what gave way has come back, or it is named. A put is named by a conflict version (`diptych
//     conflicts`; one that was lost for want of its bytes is in the ledger, too), a delete by DeleteNotDone in the ledger. What was
//     replaced by what gave way needs no name: it would be gone anyway.
//
// So a write that is lost and stands nowhere, one that is lost without a takeover, one that comes back over a newer one, and any stale read in
// between are violations. A register that nothing names and to which nothing came back has to be linearizable.
//
// With OneSite reads are left out that were on their way while a planned switch passed: the public name may still have led to the site that
// handed over, and a passive site gives out what it has.
//
// Usage: history-checker HISTORY.jsonl; it exits with 0 if all is well, 1 if a register is not, 2 if the history can't be read.
package main

import (
	"fmt"
	"os"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: history-checker HISTORY.jsonl")
		os.Exit(2)
	}
	history, err := read(os.Args[1])
	if err != nil {
		fmt.Fprintf(os.Stderr, "history-checker: %s: %v\n", os.Args[1], err)
		os.Exit(2)
	}
	report, err := check(history, os.Args[1])
	if err != nil {
		fmt.Fprintf(os.Stderr, "history-checker: %v\n", err)
		os.Exit(2)
	}
	fmt.Println(report)
	if !report.well() {
		os.Exit(1)
	}
}
