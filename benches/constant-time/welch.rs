//! Welch's t-test over two classes of times, of all of them and of those below a threshold, for a hundred thresholds (as dudect
//! does): what else the machine does makes a long tail, and what is of interest is at its front.

/// Thresholds: dudect's, denser towards the longest times.
const CROPS: i32 = 100;
/// Fewer of a class say nothing.
const ENOUGH: f64 = 5_000.0;

/// One measurement.
pub struct Sample {
    pub class: usize,
    pub ns: f64,
}

/// Where the two classes are furthest apart.
pub struct Worst {
    /// Welch's t.
    pub t: f64,
    /// Nanoseconds between the means there: of the first class above that of the second.
    pub apart: f64,
    /// So many measurements were made in all.
    pub measured: usize,
    /// And this share of them was left out there, the longest ones.
    pub cropped: f64,
}

/// Sums of one class.
#[derive(Clone, Copy, Default)]
struct Sums {
    count: f64,
    sum: f64,
    squares: f64,
}

impl Sums {
    fn mean(&self) -> f64 {
        self.sum / self.count
    }

    /// Of the mean.
    fn variance(&self) -> f64 {
        (self.squares - self.sum * self.mean()) / (self.count - 1.0) / self.count
    }
}

/// The largest |t| of all croppings.
pub fn worst(mut samples: Vec<Sample>) -> Worst {
    samples.sort_by(|a, b| a.ns.total_cmp(&b.ns));
    let measured = samples.len();
    // Sums of squares of small numbers lose nothing.
    let median = samples[measured / 2].ns;
    let mut ends: Vec<usize> = (1..=CROPS).map(|n| crop(n, measured)).collect();
    ends.push(measured);
    let mut sums = [Sums::default(); 2];
    let mut worst = Worst { t: 0.0, apart: 0.0, measured, cropped: 0.0 };
    let mut from = 0;
    for end in ends {
        for sample in &samples[from..end] {
            let (sums, ns) = (&mut sums[sample.class], sample.ns - median);
            sums.count += 1.0;
            sums.sum += ns;
            sums.squares += ns * ns;
        }
        from = end;
        let [a, b] = sums;
        if a.count < ENOUGH || b.count < ENOUGH {
            continue;
        }
        let apart = a.mean() - b.mean();
        let spread = (a.variance() + b.variance()).sqrt();
        let t = if spread > 0.0 { apart / spread } else { 0.0 };
        if t.abs() > worst.t.abs() {
            let cropped = 1.0 - end as f64 / measured as f64;
            worst = Worst { t, apart, measured, cropped };
        }
    }
    worst
}

/// How many measurements a threshold leaves. It may cut between some that took the same time: those are in the order in which they
/// were made, which prefers no class.
fn crop(n: i32, measured: usize) -> usize {
    let share = 1.0 - 0.5f64.powf(10.0 * f64::from(n) / f64::from(CROPS));
    (share * measured as f64) as usize
}
