//! How many steps or tests passed, and how many did not.

use std::fmt;

/// A count that is printed as `N passed, N failed`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    pub passed: usize,
    pub failed: usize,
}

impl Tally {
    pub fn add(&mut self, passed: bool) {
        if passed {
            self.passed += 1;
        } else {
            self.failed += 1;
        }
    }

    /// Reads libtest's `test result: ok. 3 passed; 0 failed; 1 ignored; …`; a skipped test counts as failed.
    pub fn of_libtest_line(line: &str) -> Option<Self> {
        let counts = line.strip_prefix("test result: ")?;
        let count_of = |what: &str| -> Option<usize> {
            let before = counts.split(';').find_map(|part| part.trim().strip_suffix(what))?;
            before.trim().rsplit(' ').next()?.parse().ok()
        };
        Some(Self { passed: count_of("passed")?, failed: count_of("failed")? + count_of("ignored")? })
    }
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} passed, {} failed", self.passed, self.failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ignored_test_counts_as_failed() {
        let line =
            "test result: ok. 12 passed; 0 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.01s";
        assert_eq!(Tally::of_libtest_line(line), Some(Tally { passed: 12, failed: 2 }));
    }

    #[test]
    fn other_lines_are_not_counted() {
        assert_eq!(Tally::of_libtest_line("running 3 tests"), None);
    }
}
