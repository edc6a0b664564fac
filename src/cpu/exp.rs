//! `exp` without branches or calls, so that loops over it are vectorised, and with the same bits on every machine.

/// `e^x` within two units in the last place, for `x` from -87 to 88; beyond, what it is there.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    /// `ln 2` in two parts, so that `n` times the first is exact.
    const LN_2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
    /// Added to a number below `2^22` it rounds it to the nearest integer, which then stands in the low bits.
    const ROUND: f32 = 12_582_912.0;
    // Two choices; NaN stays.
    let x = if x < -87.0 { -87.0 } else { x };
    let x = if x > 88.0 { 88.0 } else { x };
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = x - n * LN_2[0] - n * LN_2[1];
    // The series of e^r; |r| is at most ln 2 / 2, where the first term left out is below 2^-27.
    let sum = ((1.0 / 5040.0 * r + 1.0 / 720.0) * r + 1.0 / 120.0) * r + 1.0 / 24.0;
    let sum = (((sum * r + 1.0 / 6.0) * r + 0.5) * r + 1.0) * r + 1.0;
    sum * f32::from_bits((shifted.to_bits() << 23).wrapping_add(1.0f32.to_bits()))
}

#[cfg(test)]
mod tests {
    use super::exp;

    #[test]
    fn exp_is_within_two_units_in_the_last_place() {
        let mut worst = 0.0f64;
        for i in 0..=1_750_000 {
            let x = -87.0 + i as f32 * 1e-4;
            let expected = f64::from(x).exp();
            worst = worst.max((f64::from(exp(x)) / expected - 1.0).abs());
        }
        assert!(worst < 2.0 * f64::from(f32::EPSILON), "off by {worst:e}");
        assert_eq!(exp(0.0), 1.0);
        assert!(exp(f32::NAN).is_nan());
        assert_eq!(exp(f32::NEG_INFINITY), exp(-87.0));
    }
}
