//! Labels beside a chart, moved apart so that none covers another.

/// Moves `wanted` positions (pixels downwards) at least `apart` from each other and within `top..bottom`; in the order given.
/// Nothing if there are too many.
pub(in crate::compare::report) fn spread(wanted: &[f64], apart: f64, (top, bottom): (f64, f64)) -> Option<Vec<f64>> {
    let mut order: Vec<usize> = (0..wanted.len()).collect();
    order.sort_by(|one, other| wanted[*one].total_cmp(&wanted[*other]));
    if wanted.len().saturating_sub(1) as f64 * apart > bottom - top {
        return None;
    }
    let mut placed: Vec<f64> = Vec::with_capacity(wanted.len());
    for index in &order {
        let least = placed.last().map_or(top, |above| above + apart);
        placed.push(wanted[*index].max(least));
    }
    let mut most = bottom;
    for place in placed.iter_mut().rev() {
        *place = place.min(most);
        most = *place - apart;
    }
    let mut result = vec![0.0; wanted.len()];
    for (index, place) in order.into_iter().zip(placed) {
        result[index] = place;
    }
    Some(result)
}

/// A name that fits its place.
pub(in crate::compare::report) fn cut(text: &str, chars: usize) -> String {
    if text.chars().count() <= chars {
        return text.to_owned();
    }
    let mut cut: String = text.chars().take(chars.saturating_sub(1)).collect();
    cut.push('…');
    cut
}

#[cfg(test)]
mod tests {
    use super::spread;

    #[test]
    fn labels_keep_their_distance_and_stay_inside() {
        let placed = spread(&[50.0, 51.0, 49.0, 100.0, 99.0], 12.0, (0.0, 100.0)).unwrap();
        let mut sorted = placed.clone();
        sorted.sort_by(f64::total_cmp);
        assert!(sorted.windows(2).all(|pair| pair[1] - pair[0] >= 12.0), "{sorted:?}");
        assert!(sorted[0] >= 0.0 && sorted[4] <= 100.0, "{sorted:?}");
        assert!(placed[2] < placed[0] && placed[0] < placed[1], "in the order of the lines: {placed:?}");
        assert_eq!(spread(&[1.0; 20], 12.0, (0.0, 100.0)), None);
    }
}
