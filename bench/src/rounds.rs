//! Paired rounds: contenders take turns, and what is compared was measured side by side.

use anyhow::Result;

/// Figures of each contender, one for each round.
pub struct Rounds {
    figures: Vec<Vec<f64>>,
}

/// A quotient of two contenders, formed round by round.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Ratio {
    pub median: f64,
    pub lowest: f64,
    pub highest: f64,
}

impl Rounds {
    /// Runs every contender once to warm up, then `rounds` times, in alternating order (ABC CBA ABC …) so that a
    /// machine that slows down or speeds up meanwhile favours nobody.
    pub fn run(
        rounds: usize,
        contenders: usize,
        mut measure: impl FnMut(usize) -> Result<f64>,
    ) -> Result<Self> {
        let [figures] = Rounds::run_several(rounds, contenders, |contender| Ok([measure(contender)?]))?;
        Ok(figures)
    }

    /// The same where a round gives several figures.
    pub fn run_several<const N: usize>(
        rounds: usize,
        contenders: usize,
        mut measure: impl FnMut(usize) -> Result<[f64; N]>,
    ) -> Result<[Self; N]> {
        let mut several = [(); N].map(|()| Rounds { figures: vec![Vec::with_capacity(rounds); contenders] });
        (0..contenders).try_for_each(|contender| measure(contender).map(drop))?;
        for round in 0..rounds {
            for turn in 0..contenders {
                let contender = if round % 2 == 0 { turn } else { contenders - 1 - turn };
                for (rounds, figure) in several.iter_mut().zip(measure(contender)?) {
                    rounds.figures[contender].push(figure);
                }
            }
        }
        Ok(several)
    }

    pub fn median(&self, contender: usize) -> f64 {
        median(&self.figures[contender])
    }

    pub fn all(&self, contender: usize) -> &[f64] {
        &self.figures[contender]
    }

    /// How much more one contender's figure is than another's, round by round.
    pub fn differences(&self, contender: usize, baseline: usize) -> Vec<f64> {
        self.figures[contender]
            .iter()
            .zip(&self.figures[baseline])
            .map(|(figure, base)| figure - base)
            .collect()
    }

    pub fn ratio(&self, contender: usize, baseline: usize) -> Ratio {
        let pairs = self.figures[contender].iter().zip(&self.figures[baseline]);
        let ratios: Vec<f64> = pairs.map(|(figure, limit)| figure / limit).collect();
        Ratio {
            median: median(&ratios),
            lowest: ratios.iter().copied().fold(f64::INFINITY, f64::min),
            highest: ratios.iter().copied().fold(0.0, f64::max),
        }
    }
}

/// The middle one, or the mean of the two in the middle; 0 of nothing.
pub fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        count if count % 2 == 1 => sorted[count / 2],
        count => f64::midpoint(sorted[count / 2 - 1], sorted[count / 2]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contenders_alternate_and_the_first_pass_does_not_count() {
        let mut turns = Vec::new();
        let rounds = Rounds::run(2, 2, |contender| {
            turns.push(contender);
            Ok(turns.len() as f64)
        })
        .unwrap();
        assert_eq!(turns, [0, 1, 0, 1, 1, 0]);
        assert_eq!(rounds.figures, [[3.0, 6.0], [4.0, 5.0]]);
        assert_eq!(rounds.differences(1, 0), [1.0, -1.0]);
        let ratio = rounds.ratio(0, 1);
        assert_eq!((ratio.lowest, ratio.highest), (0.75, 1.2));
    }

    #[test]
    fn one_bad_round_does_not_move_the_median() {
        assert_eq!(median(&[1.0, 900.0, 1.2]), 1.2);
        assert_eq!(median(&[1.0, 2.0]), 1.5);
    }
}
