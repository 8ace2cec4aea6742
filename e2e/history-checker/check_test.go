package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// One operation after the other, each of a client of its own: at 10, 20, 30 and so on, in seconds.
const second = int64(1_000_000_000)

func at(number int, does action, words string) string {
	call := int64(number) * 10 * second
	return fmt.Sprintf(`{"kind":"operation","register":"a/1","client":%d,"does":"%s",%s,"call":%d,"return":%d}`, number, does, words, call, call+second)
}

func puts(number int, value int64, ended outcome) string {
	return at(number, put, fmt.Sprintf(`"writes":%d,"outcome":"%s"`, value, ended))
}

func reads(number int, value int64) string {
	return at(number, get, fmt.Sprintf(`"read":%d,"outcome":"ok"`, value))
}

func deletes(number int) string {
	return at(number, remove, `"outcome":"ok"`)
}

func creates(number int, value int64, ended outcome) string {
	return at(number, create, fmt.Sprintf(`"writes":%d,"outcome":"%s"`, value, ended))
}

func replaces(number int, expects, value int64, ended outcome) string {
	return at(number, replace, fmt.Sprintf(`"expects":%d,"writes":%d,"outcome":"%s"`, expects, value, ended))
}

// takenOver is a term that was won right before the operation of this number. The other site is back before number 6, and all is settled before
// number 9.
func takenOver(number int, planned bool) string {
	won := int64(number)*10*second - second
	return fmt.Sprintf(`{"kind":"term","epoch":%d,"site":"west","planned":%v,"after":%d,"at":%d,"back":%d}`, number, planned, won-7*second, won, 55*second)
}

func conflict(value int64) string {
	return fmt.Sprintf(`{"kind":"conflict","register":"a/1","value":%d}`, value)
}

const cameBack = `{"kind":"ledger","register":"a/1","entry":"CameBack","settled":"Restored"}`

const notDone = `{"kind":"ledger","register":"a/1","entry":"DeleteNotDone"}`

func recorded(t *testing.T, acknowledge string, lines []string) string {
	t.Helper()
	run := fmt.Sprintf(`{"kind":"run","acknowledge":"%s"}`, acknowledge)
	end := fmt.Sprintf(`{"kind":"settled","at":%d}`, 85*second)
	path := filepath.Join(t.TempDir(), "history.jsonl")
	content := strings.Join(append(append([]string{run}, lines...), end), "\n")
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func judged(t *testing.T, path string) *report {
	t.Helper()
	history, err := read(path)
	if err != nil {
		t.Fatal(err)
	}
	report, err := check(history, path)
	if err != nil {
		t.Fatal(err)
	}
	return report
}

func TestVerdicts(t *testing.T) {
	of := func(lines ...string) []string { return lines }
	for _, test := range []struct {
		name        string
		acknowledge string
		lines       []string
		wanted      verdict
	}{
		{"what was written is read until it is deleted", "BothSites",
			of(reads(1, 0), puts(2, 7, ok), reads(3, 7), deletes(4), reads(9, 0)), linearizable},
		{"a stale read", "BothSites",
			of(puts(1, 7, ok), puts(2, 8, ok), reads(3, 7), reads(9, 8)), wrong},
		{"a lost write", "BothSites",
			of(puts(1, 7, ok), puts(2, 8, ok), takenOver(3, false), reads(3, 7), reads(9, 7)), wrong},
		{"a lost write that is named, with BothSites", "BothSites",
			of(puts(1, 7, ok), puts(2, 8, ok), takenOver(3, false), reads(9, 7), conflict(8)), wrong},
		{"a lost delete", "BothSites",
			of(puts(1, 7, ok), deletes(2), reads(9, 7)), wrong},
		{"a write that failed and is read", "BothSites",
			of(puts(1, 7, failed), reads(9, 7)), wrong},
		{"a write of unknown outcome that takes effect later, once", "BothSites",
			of(puts(1, 7, ok), puts(2, 8, unknown), reads(3, 7), reads(4, 8), puts(5, 9, ok), reads(9, 9)), linearizable},
		{"a write of unknown outcome that takes effect twice", "BothSites",
			of(puts(2, 8, unknown), reads(3, 8), puts(4, 9, ok), reads(9, 8)), wrong},
		{"conditions that held and that did not", "BothSites",
			of(creates(1, 7, ok), creates(2, 8, refused), replaces(3, 7, 9, ok), replaces(4, 7, 10, refused), reads(9, 9)), linearizable},
		{"two creations of one key", "BothSites",
			of(creates(1, 7, ok), creates(2, 8, ok), reads(9, 8)), wrong},
		{"a creation refused where nothing is", "BothSites",
			of(deletes(1), creates(2, 8, refused), reads(9, 0)), wrong},
		{"a replacement of what was replaced", "BothSites",
			of(puts(1, 7, ok), puts(2, 8, ok), replaces(3, 7, 9, ok), reads(9, 9)), wrong},

		{"a takeover that loses nothing", "OneSite",
			of(puts(1, 7, ok), puts(2, 8, ok), takenOver(3, false), reads(9, 8)), linearizable},
		{"a lost write that stands nowhere", "OneSite",
			of(puts(1, 7, ok), puts(2, 8, ok), takenOver(3, false), reads(3, 7), reads(9, 7)), wrong},
		{"a lost write that is a conflict version", "OneSite",
			of(puts(1, 7, ok), puts(2, 8, ok), takenOver(3, false), reads(3, 7), puts(4, 9, ok), reads(9, 9), conflict(8)), explained},
		{"another value is a conflict version", "OneSite",
			of(puts(1, 7, ok), puts(2, 8, ok), takenOver(3, false), reads(3, 7), puts(4, 9, ok), reads(9, 9), conflict(7)), wrong},
		{"a lost write that comes back", "OneSite",
			of(puts(1, 7, ok), puts(2, 8, ok), takenOver(3, false), reads(3, 7), reads(9, 8), cameBack), explained},
		{"a lost write that comes back, and nothing says so", "OneSite",
			of(puts(1, 7, ok), puts(2, 8, ok), takenOver(3, false), reads(3, 7), reads(9, 8)), wrong},
		{"a lost write that comes back before its site has", "OneSite",
			of(puts(1, 7, ok), puts(2, 8, ok), takenOver(3, false), reads(3, 7), reads(4, 8), reads(9, 8), cameBack), wrong},
		{"a lost write that comes back over a newer one", "OneSite",
			of(puts(1, 7, ok), puts(2, 8, ok), takenOver(3, false), reads(3, 7), puts(4, 9, ok), reads(9, 8), conflict(8), cameBack), wrong},
		{"a lost creation that comes back over a delete", "OneSite",
			of(creates(2, 8, ok), takenOver(3, false), reads(3, 0), puts(4, 9, ok), deletes(5), reads(9, 8), cameBack), explained},
		{"two takeovers, each with a loss that is named", "OneSite",
			of(puts(1, 7, ok), puts(2, 8, ok), takenOver(3, false), reads(3, 7), puts(5, 9, ok), takenOver(6, false), reads(6, 7),
				reads(9, 7), conflict(8), conflict(9)), explained},
		{"a lost delete that is noted", "OneSite",
			of(puts(1, 7, ok), deletes(2), takenOver(3, false), reads(3, 7), puts(4, 9, ok), reads(9, 9), notDone), explained},
		{"a lost delete that is not", "OneSite",
			of(puts(1, 7, ok), deletes(2), takenOver(3, false), reads(3, 7), puts(4, 9, ok), reads(9, 9)), wrong},
		{"a loss in a planned switch", "OneSite",
			of(puts(1, 7, ok), puts(2, 8, ok), takenOver(3, true), reads(9, 7), conflict(8)), wrong},
		{"a read of the site that handed over, while the switch passes", "OneSite",
			of(puts(1, 7, ok), puts(2, 8, ok), takenOver(3, true), reads(3, 7), reads(9, 8)), linearizable},
		{"a loss without a takeover", "OneSite",
			of(puts(1, 7, ok), puts(2, 8, ok), reads(3, 7), puts(4, 9, ok), reads(9, 9), conflict(8)), wrong},
		{"a loss of what was replaced long before the takeover", "OneSite",
			of(puts(1, 6, ok), puts(2, 7, ok), puts(3, 8, ok), takenOver(5, false), reads(9, 6), conflict(8)), wrong},
		{"a stale read behind a loss that is named", "OneSite",
			of(puts(1, 7, ok), puts(2, 8, ok), takenOver(3, false), reads(3, 7), puts(4, 9, ok), reads(5, 7), reads(9, 9), conflict(8)), wrong},
	} {
		t.Run(test.name, func(t *testing.T) {
			report := judged(t, recorded(t, test.acknowledge, test.lines))
			if report.verdicts[test.wanted] != 1 {
				t.Fatalf("wanted %s:\n%s", test.wanted, report)
			}
			if report.well() != (test.wanted != wrong) {
				t.Fatalf("it is well: %v", report.well())
			}
		})
	}
}

func TestACounterexampleIsWrittenBesideTheHistory(t *testing.T) {
	path := recorded(t, "BothSites", []string{puts(1, 7, ok), puts(2, 8, ok), reads(9, 7)})
	report := judged(t, path)
	page := filepath.Join(filepath.Dir(path), "history-a-1.html")
	content, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(content), "get → 7") || !strings.Contains(report.String(), page) {
		t.Fatalf("%s does not show the read, or is not named:\n%s", page, report)
	}
}

func TestAHistoryThatWasBrokenOffIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "history.jsonl")
	for content, wanted := range map[string]string{
		`{"kind":"run","acknowledge":"OneSite"}`:                                                              "broken off",
		`{"kind":"operation","register":"a","does":"put","outcome":"ok"}`:                                     "line 1",
		`{"kind":"run","acknowledge":"Nobody"}`:                                                               "line 1",
		"{\"kind\":\"run\",\"acknowledge\":\"OneSite\"}\n{\"kind\":\"opera":                                   "line 2",
		`{"kind":"run","acknowledge":"OneSite"}` + "\n" + puts(1, 7, ok) + "\n" + `{"kind":"settled","at":1}`: "not read once more",
	} {
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := read(path); err == nil || !strings.Contains(err.Error(), wanted) {
			t.Errorf("%s: %v", content, err)
		}
	}
}
