//! What a sample says about the rest.
//!
//! Of m cells drawn at random among a provider's, b were bad. The upper end of the one-sided 95 % interval of Clopper and Pearson is the
//! share p at which b or fewer bad ones among m would still happen with a chance of 5 %: `sum over i <= b of C(m, i) p^i (1-p)^(m-i) = 0.05`.
//! For b = 0 that is `1 - 0.05^(1/m)`, about 3/m. Exact for draws with replacement, on the safe side for draws without.

/// Chance of being wrong that is left.
const DOUBT: f64 = 0.05;

/// With 95 % confidence at most this share is bad, 0.0 to 1.0; 1.0 when nothing was drawn.
pub(crate) fn at_most_bad(drawn: u64, bad: u64) -> f64 {
    if drawn == 0 || bad >= drawn {
        return 1.0;
    }
    let (mut low, mut high) = (0.0_f64, 1.0_f64);
    for _ in 0..60 {
        let middle = f64::midpoint(low, high);
        if at_most(drawn, bad, middle) > DOUBT {
            low = middle;
        } else {
            high = middle;
        }
    }
    high
}

/// Chance of at most `bad` bad ones among `drawn` when the share `p` is bad. In logarithms: the terms are tiny.
fn at_most(drawn: u64, bad: u64, p: f64) -> f64 {
    let (p, m) = (p.clamp(f64::MIN_POSITIVE, 1.0 - f64::EPSILON), float(drawn));
    let step = (p / (1.0 - p)).ln();
    let mut term = m * (1.0 - p).ln();
    let mut sum = term.exp();
    for i in 0..bad {
        term += ((m - float(i)) / (float(i) + 1.0)).ln() + step;
        sum += term.exp();
    }
    sum
}

#[expect(clippy::cast_precision_loss, reason = "counts of samples are far below 2^53")]
const fn float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_those_of_the_tables() {
        let near = |drawn, bad, expected: f64| {
            let found = at_most_bad(drawn, bad);
            assert!((found - expected).abs() < 5e-5, "{bad} of {drawn}: {found}, expected {expected}");
        };
        near(10, 0, 0.2589);
        near(100, 0, 0.0295);
        near(20, 1, 0.2161);
        near(50, 2, 0.1206);
        near(1000, 0, 0.00299);
        assert!(at_most_bad(1_000_000, 0) < 3.1e-6);
        assert!(at_most_bad(100_000, 50) < 0.00066);
        assert!((at_most_bad(0, 0) - 1.0).abs() < 1e-12 && (at_most_bad(3, 3) - 1.0).abs() < 1e-12, "no sample, no statement");
    }
}
