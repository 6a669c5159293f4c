//! A bound on how often something is done, whoever asks for it.

use crate::clock::Now;

/// Lets so many through per second, and some at once after a pause.
pub(crate) struct Bucket {
    per_second: u64,
    most: u64,
    left: u64,
    /// Up to when it was filled.
    since_ms: u64,
}

impl Bucket {
    pub(crate) fn new(per_second: u64, most: u64) -> Bucket {
        Bucket { per_second, most, left: most, since_ms: 0 }
    }

    /// Once more now?
    pub(crate) fn take(&mut self, now: Now) -> bool {
        let gained = now.ms().saturating_sub(self.since_ms) * self.per_second / 1000;
        if gained > 0 {
            self.left = (self.left + gained).min(self.most);
            // What is left over of the time counts the next time.
            self.since_ms += gained * 1000 / self.per_second;
        }
        let taken = self.left > 0;
        self.left -= u64::from(taken);
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_lets_a_burst_through_and_then_its_rate() {
        let mut bucket = Bucket::new(100, 5);
        let mut taken = |from: u64, to: u64| (from..to).filter(|ms| bucket.take(Now::from_ms(*ms))).count();
        assert_eq!(taken(0, 4), 4);
        assert_eq!(taken(4, 1004), 101, "one of the burst was left");
        assert_eq!(taken(60_000, 60_005), 5, "no more than the burst after a pause");
    }
}
