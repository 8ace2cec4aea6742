//! Which k of n rows to try, the first ones first.

/// All choices of `choose` of `0..of`, in lexicographic order.
pub fn combinations(of: usize, choose: usize) -> impl Iterator<Item = Vec<usize>> {
    let mut next = (choose <= of).then(|| (0..choose).collect::<Vec<_>>());
    std::iter::from_fn(move || {
        let now = next.take()?;
        let mut then = now.clone();
        // The last place that can still move on; those after it follow it closely.
        if let Some(place) = (0..choose).rev().find(|&place| then[place] < of - choose + place) {
            then[place] += 1;
            for later in place + 1..choose {
                then[later] = then[later - 1] + 1;
            }
            next = Some(then);
        }
        Some(now)
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_choice_comes_once_and_the_nearest_first() {
        let all: Vec<_> = combinations(5, 3).collect();
        assert_eq!(all.len(), 10);
        assert_eq!(all[0], [0, 1, 2]);
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), 10);
        assert!(all.is_sorted());
    }

    #[test]
    fn more_than_there_are_is_no_choice() {
        assert_eq!(combinations(2, 3).count(), 0);
        assert_eq!(combinations(3, 3).count(), 1);
    }
}
