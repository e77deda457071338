//! A rate limit of so many tokens a second, with time passed in.
//!
//! The bucket holds one second's worth of tokens. It is plain data of 16 bytes, so that a connection can afford
//! one; whoever shares it between threads brings the lock.

/// One token in the unit of the state. Each millisecond then adds exactly `rate` units: no fraction is ever lost.
const UNITS_PER_TOKEN: i64 = 1_000;

#[derive(Clone, Debug)]
pub struct TokenBucket {
    /// Tokens added in a second, which is also the capacity.
    rate: u32,
    /// When `units` was right, in milliseconds modulo 2^32.
    updated_ms: u32,
    /// Below zero after a request larger than the capacity.
    units: i64,
}

impl TokenBucket {
    /// A full bucket. A `rate` of 0 never grants anything.
    pub fn new(rate: u32, now_ms: u64) -> Self {
        Self { rate, updated_ms: wrapped(now_ms), units: capacity(rate) }
    }

    /// Takes over another rate, as a reload of the configuration brings it; what was saved up counts on.
    pub fn set_rate(&mut self, rate: u32, now_ms: u64) {
        if self.rate != rate {
            self.refill(now_ms);
            self.rate = rate;
            self.units = self.units.min(capacity(rate));
        }
    }

    /// Takes `n` tokens, or none. A request for more than the capacity passes when the bucket is full and
    /// leaves a debt: it would otherwise never pass, and the debt keeps the average right.
    pub fn try_take(&mut self, n: u32, now_ms: u64) -> bool {
        self.refill(now_ms);
        if self.rate == 0 || self.units < self.needed(n) {
            return false;
        }
        self.units -= i64::from(n) * UNITS_PER_TOKEN;
        true
    }

    /// Milliseconds from now until `n` tokens can be taken; `u64::MAX` for never.
    pub fn retry_after_ms(&self, n: u32, now_ms: u64) -> u64 {
        if self.rate == 0 {
            return u64::MAX;
        }
        let missing = self.needed(n).saturating_sub(self.refilled(now_ms));
        u64::try_from(missing).unwrap_or(0).div_ceil(u64::from(self.rate))
    }

    fn needed(&self, n: u32) -> i64 {
        (i64::from(n) * UNITS_PER_TOKEN).min(capacity(self.rate))
    }

    fn refill(&mut self, now_ms: u64) {
        self.units = self.refilled(now_ms);
        self.updated_ms = wrapped(now_ms);
    }

    fn refilled(&self, now_ms: u64) -> i64 {
        let elapsed_ms = wrapped(now_ms).wrapping_sub(self.updated_ms);
        // Threads may read the clock in one order and take the lock in another: a step back is no time at all,
        // not the 49 days that the modulus would make of it.
        let elapsed_ms = if elapsed_ms > u32::MAX / 2 { 0 } else { elapsed_ms };
        let added = i64::from(elapsed_ms).saturating_mul(i64::from(self.rate));
        self.units.saturating_add(added).min(capacity(self.rate))
    }
}

fn capacity(rate: u32) -> i64 {
    i64::from(rate) * UNITS_PER_TOKEN
}

#[expect(clippy::cast_possible_truncation, reason = "the modulus is the intention")]
fn wrapped(now_ms: u64) -> u32 {
    now_ms as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_fits_into_sixteen_bytes() {
        assert_eq!(size_of::<TokenBucket>(), 16);
    }

    #[test]
    fn a_burst_of_one_second_passes_and_the_next_waits() {
        let mut bucket = TokenBucket::new(10, 5_000);
        assert!((0..10).all(|_| bucket.try_take(1, 5_000)));
        assert!(!bucket.try_take(1, 5_000));
        assert_eq!(bucket.retry_after_ms(1, 5_040), 60);
        assert!(!bucket.try_take(1, 5_099));
        assert!(bucket.try_take(1, 5_100));
    }

    #[test]
    fn tokens_do_not_pile_up_beyond_a_second() {
        let mut bucket = TokenBucket::new(3, 0);
        assert!(bucket.try_take(3, 60_000));
        assert!(!bucket.try_take(1, 60_000));
    }

    #[test]
    fn a_refused_request_takes_nothing() {
        let mut bucket = TokenBucket::new(5, 0);
        assert!(bucket.try_take(3, 0));
        assert!(!bucket.try_take(3, 0));
        assert!(bucket.try_take(2, 0));
    }

    #[test]
    fn a_request_beyond_the_capacity_passes_when_full_and_is_paid_back() {
        let mut bucket = TokenBucket::new(5, 0);
        assert!(bucket.try_take(10, 0));
        assert_eq!(bucket.retry_after_ms(1, 0), 1_200);
        assert!(!bucket.try_take(1, 1_199));
        assert!(bucket.try_take(1, 1_200));
    }

    #[test]
    fn odd_rates_lose_no_fraction() {
        let mut bucket = TokenBucket::new(7, 0);
        assert!(bucket.try_take(7, 0));
        let granted = (1..=10_000).filter(|&ms| bucket.try_take(1, ms)).count();
        assert_eq!(granted, 70);
    }

    #[test]
    fn a_clock_that_steps_back_adds_nothing() {
        let mut bucket = TokenBucket::new(10, 1_000);
        assert!(bucket.try_take(10, 1_000));
        assert!(!bucket.try_take(1, 999));
        assert!(bucket.try_take(1, 1_099));
    }

    #[test]
    fn a_rate_of_zero_never_grants() {
        let mut bucket = TokenBucket::new(0, 0);
        assert!(!bucket.try_take(1, 10_000));
        assert_eq!(bucket.retry_after_ms(1, 0), u64::MAX);
    }
}
