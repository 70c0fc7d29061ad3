//! What is counted of the requests of one schema at one level.

/// Upper bounds of the waiting and running times, in seconds.
const SECONDS: &[f64] = &[0.0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0];
const LENGTHS: &[f64] = &[0.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0];
const SEATS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 100.0];
const WATCHERS: &[f64] = &[0.0, 1.0, 10.0, 100.0, 1000.0, 10000.0];

/// A histogram as Prometheus has it.
#[derive(Debug, Clone)]
pub struct Histogram {
    /// The upper bounds of the buckets.
    pub bounds: &'static [f64],
    /// How many values are in each bucket and in none before; the last one is for what is above all bounds.
    counts: [u64; 16],
    /// The sum of all values.
    pub sum: f64,
    /// How many there are.
    pub count: u64,
}

impl Histogram {
    fn new(bounds: &'static [f64]) -> Histogram {
        Histogram { bounds, counts: [0; 16], sum: 0.0, count: 0 }
    }

    /// Counts one value.
    pub fn observe(&mut self, value: f64) {
        let bucket = self.bounds.iter().position(|bound| value <= *bound).unwrap_or(self.bounds.len());
        self.counts[bucket] += 1;
        self.sum += value;
        self.count += 1;
    }

    /// The bounds, each with how many values are not above it.
    pub fn cumulative(&self) -> impl Iterator<Item = (f64, u64)> {
        let mut sum = 0;
        self.bounds.iter().zip(self.counts).map(move |(bound, count)| {
            sum += count;
            (*bound, sum)
        })
    }
}

/// What is counted of one schema's requests at one level; the names are those of upstream's metrics.
#[derive(Debug, Clone)]
pub struct FlowStats {
    /// The schema.
    pub schema: String,
    /// Requests that were let in.
    pub dispatched: u64,
    /// Requests turned away: the queue was full, there was no seat (and no queue), the wait was too long.
    pub rejected: [u64; 3],
    /// Requests that run, and the seats they take.
    pub executing: (u64, u64),
    /// Requests that wait, and the seats they will take.
    pub waiting: (u64, u64),
    /// Times that the next request could not begin though a seat was free.
    pub no_accommodation: u64,
    /// Seconds waited by those that were turned away, and by those that were let in.
    pub wait_seconds: [Histogram; 2],
    /// Seconds run, by watches (until they had begun) and by others.
    pub run_seconds: [Histogram; 2],
    /// Requests in a queue after one was added.
    pub queue_length: Histogram,
    /// The widths.
    pub seats: Histogram,
    /// The watchers of writes.
    pub watchers: Histogram,
}

impl FlowStats {
    pub(crate) fn new(schema: &str) -> FlowStats {
        let seconds = || Histogram::new(SECONDS);
        FlowStats {
            schema: schema.to_owned(),
            dispatched: 0,
            rejected: [0; 3],
            executing: (0, 0),
            waiting: (0, 0),
            no_accommodation: 0,
            wait_seconds: [seconds(), seconds()],
            run_seconds: [seconds(), seconds()],
            queue_length: Histogram::new(LENGTHS),
            seats: Histogram::new(SEATS),
            watchers: Histogram::new(WATCHERS),
        }
    }

    /// Whether nobody is counted here now.
    pub(crate) fn is_idle(&self) -> bool {
        self.executing == (0, 0) && self.waiting == (0, 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histogram_counts_values_at_and_above_its_bounds() {
        let mut histogram = Histogram::new(SEATS);
        [1.0, 2.0, 3.0, 1000.0].into_iter().for_each(|value| histogram.observe(value));
        let counts: Vec<u64> = histogram.cumulative().map(|(_, count)| count).collect();
        assert_eq!((counts, histogram.count, histogram.sum), (vec![1, 2, 3, 3, 3, 3, 3, 3], 4, 1006.0));
    }
}
