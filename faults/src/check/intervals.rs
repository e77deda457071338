//! Times at which something holds.

/// Ascending and apart, each from its start to its end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Intervals(Vec<(u64, u64)>);

impl Intervals {
    pub fn of(mut spans: Vec<(u64, u64)>) -> Self {
        spans.retain(|(from, until)| from < until);
        spans.sort_unstable();
        let mut merged: Vec<(u64, u64)> = Vec::with_capacity(spans.len());
        for (from, until) in spans {
            match merged.last_mut() {
                Some(last) if from <= last.1 => last.1 = last.1.max(until),
                _ => merged.push((from, until)),
            }
        }
        Self(merged)
    }

    pub fn without(&self, others: &Self) -> Self {
        let mut left = Vec::new();
        for (mut from, until) in self.0.iter().copied() {
            for (start, end) in others.0.iter().copied() {
                if start >= until || end <= from {
                    continue;
                }
                left.push((from, start));
                from = from.max(end);
            }
            left.push((from, until));
        }
        Self::of(left)
    }

    pub fn and(&self, others: &Self) -> Self {
        let mut both = Vec::new();
        for (from, until) in &self.0 {
            both.extend(others.0.iter().map(|(start, end)| (*from.max(start), *until.min(end))));
        }
        Self::of(both)
    }

    /// Whether it holds all the time in between.
    pub fn covers(&self, from: u64, until: u64) -> bool {
        self.0.iter().any(|(start, end)| *start <= from && until <= *end)
    }

    /// Whether it holds at any time in between.
    pub fn touches(&self, from: u64, until: u64) -> bool {
        self.0.iter().any(|(start, end)| *start <= until && from <= *end)
    }

    /// Those that last longer.
    pub fn longer_than(&self, length: u64) -> impl Iterator<Item = (u64, u64)> {
        self.0.iter().copied().filter(move |(from, until)| until - from > length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(spans: &[(u64, u64)]) -> Intervals {
        Intervals::of(spans.to_vec())
    }

    #[test]
    fn what_overlaps_is_one() {
        assert_eq!(of(&[(5, 7), (1, 3), (2, 4), (9, 9)]).0, [(1, 4), (5, 7)]);
    }

    #[test]
    fn others_are_cut_out() {
        assert_eq!(of(&[(1, 10)]).without(&of(&[(0, 2), (4, 5), (9, 12)])).0, [(2, 4), (5, 9)]);
        assert_eq!(of(&[(1, 10)]).without(&of(&[(0, 12)])).0, []);
        assert_eq!(of(&[(1, 3), (5, 9)]).and(&of(&[(2, 6), (8, 20)])).0, [(2, 3), (5, 6), (8, 9)]);
    }

    #[test]
    fn times_are_found() {
        let some = of(&[(1, 3), (5, 9)]);
        assert!(some.covers(5, 9) && !some.covers(2, 6) && some.touches(2, 6) && !some.touches(10, 12));
        assert_eq!(some.longer_than(2).collect::<Vec<_>>(), [(5, 9)]);
    }
}
