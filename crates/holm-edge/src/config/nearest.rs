//! Which known word was probably meant: the number of single letters to insert, remove, replace or swap.

/// The candidate that is nearest to a dotted path, if any is near enough. A last segment that is known elsewhere counts
/// too: `mqtt_port` at the top was meant as `holm.mqtt_port`.
pub(super) fn nearest<'a>(path: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let last = last_segment(path);
    candidates
        .map(|candidate| {
            let whole = distance(path, candidate);
            let end = distance(last, last_segment(candidate)) + 1;
            (whole.min(end), candidate)
        })
        .min()
        .filter(|(distance, _)| *distance <= (last.chars().count() / 3).max(2))
        .map(|(_, candidate)| candidate)
}

fn last_segment(path: &str) -> &str {
    path.rsplit('.').next().unwrap_or(path)
}

/// Optimal string alignment: like Levenshtein's, and two neighbours swapped count as one.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(100).collect(), b.chars().take(100).collect());
    let mut before: Vec<usize> = vec![0; b.len() + 1];
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut next = vec![i + 1; b.len() + 1];
        for (j, y) in b.iter().enumerate() {
            let mut best = (row[j] + usize::from(x != y)).min(row[j + 1] + 1).min(next[j] + 1);
            if i > 0 && j > 0 && *x == b[j - 1] && a[i - 1] == *y {
                best = best.min(before[j - 1] + 1);
            }
            next[j + 1] = best;
        }
        before = std::mem::replace(&mut row, next);
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_count_single_letters_and_swaps() {
        assert_eq!(distance("hostname", "hostname"), 0);
        assert_eq!(distance("hostnam", "hostname"), 1);
        assert_eq!(distance("hsotname", "hostname"), 1);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("abc", ""), 3);
    }

    #[test]
    fn far_words_are_not_suggested() {
        let known = ["hostname", "holm.mqtt_port"];

        assert_eq!(nearest("hostnam", known.into_iter()), Some("hostname"));
        assert_eq!(nearest("mqtt_port", known.into_iter()), Some("holm.mqtt_port"));
        assert_eq!(nearest("mqttport", known.into_iter()), Some("holm.mqtt_port"));
        assert_eq!(nearest("colour", known.into_iter()), None);
    }
}
