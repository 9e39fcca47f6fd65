//! Merging text by lines.
//!
//! What it answers is part of commit ids that every peer must compute alike, so nothing here may ever depend on a
//! library's version, on a deadline or on the order of the sides: the comparison of lines is written out below, and
//! changing what it finds is a change of the format.

use std::collections::HashMap;
use std::ops::Range;

/// What both sides made of `base`, or nothing where they changed the same lines, or neighbouring ones, differently.
/// The order of the sides does not matter.
pub(super) fn merge(base: &[u8], a: &[u8], b: &[u8]) -> Option<Vec<u8>> {
    let (base, a, b): (Vec<_>, Vec<_>, Vec<_>) = (lines(base), lines(a), lines(b));
    let (of_a, of_b) = (changes(&base, &a), changes(&base, &b));
    let mut merged: Vec<&[u8]> = Vec::new();
    let (mut next_a, mut next_b) = (of_a.iter().peekable(), of_b.iter().peekable());
    // How far `base` is merged, and where that is in the sides.
    let (mut at, mut at_a, mut at_b) = (0, 0, 0);
    loop {
        let Some(start) = [next_a.peek(), next_b.peek()].into_iter().flatten().map(|change| change.old.start).min()
        else {
            merged.extend(&base[at..]);
            return Some(merged.concat());
        };
        merged.extend(&base[at..start]);
        (at_a, at_b) = (at_a + start - at, at_b + start - at);
        // Everything that touches what was taken so far belongs to it.
        let mut end = start;
        let (mut end_a, mut end_b) = (at_a, at_b);
        let mut take = |next: &mut std::iter::Peekable<std::slice::Iter<'_, Change>>, side_end: &mut usize| {
            next.next_if(|change| change.old.start <= end).map(|change| {
                end = end.max(change.old.end);
                *side_end = change.new.end;
                change.old.end
            })
        };
        let (mut old_end_a, mut old_end_b) = (start, start);
        loop {
            let a = take(&mut next_a, &mut end_a);
            let b = take(&mut next_b, &mut end_b);
            old_end_a = a.unwrap_or(old_end_a);
            old_end_b = b.unwrap_or(old_end_b);
            if a.is_none() && b.is_none() {
                break;
            }
        }
        let (end_a, end_b) = (end_a + end - old_end_a, end_b + end - old_end_b);
        let (old, new_a, new_b) = (&base[start..end], &a[at_a..end_a], &b[at_b..end_b]);
        merged.extend(if new_a == old || new_a == new_b {
            new_b
        } else if new_b == old {
            new_a
        } else {
            return None;
        });
        (at, at_a, at_b) = (end, end_a, end_b);
    }
}

fn lines(text: &[u8]) -> Vec<&[u8]> {
    text.split_inclusive(|&byte| byte == b'\n').collect()
}

/// Lines of the old text that became lines of the new.
#[derive(Debug, PartialEq, Eq)]
struct Change {
    old: Range<usize>,
    new: Range<usize>,
}

/// The changes that make `new` of `old`, in order; no two touch.
fn changes(old: &[&[u8]], new: &[&[u8]]) -> Vec<Change> {
    // Lines as numbers: what follows compares them often.
    let mut numbers: HashMap<&[u8], u32> = HashMap::new();
    let mut number = |line| {
        let fresh = u32::try_from(numbers.len()).unwrap_or(u32::MAX);
        *numbers.entry(line).or_insert(fresh)
    };
    let old: Vec<u32> = old.iter().map(|&line| number(line)).collect();
    let new: Vec<u32> = new.iter().map(|&line| number(line)).collect();
    let mut kept = Vec::new();
    match_lines(&old, &new, &mut kept);
    let mut changes = Vec::new();
    let (mut at_old, mut at_new) = (0, 0);
    for (kept_old, kept_new) in kept.into_iter().chain([(old.len(), new.len())]) {
        if (at_old, at_new) != (kept_old, kept_new) {
            changes.push(Change { old: at_old..kept_old, new: at_new..kept_new });
        }
        (at_old, at_new) = (kept_old + 1, kept_new + 1);
    }
    changes
}

/// So many comparisons at most are spent on one stretch without lines that stand once, and on all of them together;
/// what is beyond it is one change.
const MOST_COMPARISONS: usize = 1 << 22;
const MOST_COMPARISONS_IN_ALL: usize = 1 << 25;
/// So often at most, on average, a line is looked at; what is left then is one change.
const MOST_LOOKS: usize = 64;

/// Which lines of `old` are which of `new`, in order. Common beginnings and ends are matched first, then lines that
/// stand just once in each (the longest run of those in the same order), then what lies between them likewise; where
/// no line stands once, by the longest common subsequence.
fn match_lines(old: &[u32], new: &[u32], kept: &mut Vec<(usize, usize)>) {
    let mut work = vec![(0..old.len(), 0..new.len())];
    let mut looks = (old.len() + new.len()).saturating_mul(MOST_LOOKS);
    let mut comparisons = MOST_COMPARISONS_IN_ALL;
    while let Some((mut a, mut b)) = work.pop() {
        while !a.is_empty() && !b.is_empty() && old[a.start] == new[b.start] {
            kept.push((a.start, b.start));
            (a.start, b.start) = (a.start + 1, b.start + 1);
        }
        while !a.is_empty() && !b.is_empty() && old[a.end - 1] == new[b.end - 1] {
            (a.end, b.end) = (a.end - 1, b.end - 1);
            kept.push((a.end, b.end));
        }
        if a.is_empty() || b.is_empty() {
            continue;
        }
        let Some(left) = looks.checked_sub(a.len() + b.len()) else { continue };
        looks = left;
        let anchors = anchors(&old[a.clone()], &new[b.clone()]);
        if anchors.is_empty() {
            let cost = (a.len() + 1).saturating_mul(b.len() + 1);
            let Some(left) = comparisons.checked_sub(cost).filter(|_| cost <= MOST_COMPARISONS) else { continue };
            comparisons = left;
            let subsequence = longest_common_subsequence(&old[a.clone()], &new[b.clone()]);
            kept.extend(subsequence.into_iter().map(|(i, j)| (a.start + i, b.start + j)));
            continue;
        }
        let (from_a, from_b) = (a.start, b.start);
        for (i, j) in anchors {
            let (i, j) = (from_a + i, from_b + j);
            kept.push((i, j));
            work.push((a.start..i, b.start..j));
            (a.start, b.start) = (i + 1, j + 1);
        }
        work.push((a, b));
    }
    kept.sort_unstable();
}

/// The longest run, in the same order, of lines that stand once in each.
fn anchors(old: &[u32], new: &[u32]) -> Vec<(usize, usize)> {
    let once = |lines: &[u32]| {
        let mut places: HashMap<u32, Option<usize>> = HashMap::new();
        for (at, &line) in lines.iter().enumerate() {
            places.entry(line).and_modify(|place| *place = None).or_insert(Some(at));
        }
        places
    };
    let (once_old, once_new) = (once(old), once(new));
    let pairs: Vec<(usize, usize)> = old
        .iter()
        .filter_map(|line| Some((once_old.get(line).copied().flatten()?, once_new.get(line).copied().flatten()?)))
        .collect();
    // Patience: piles with ever greater ends; each pair knows the one before it on the pile to the left.
    let mut piles: Vec<usize> = Vec::new();
    let mut before: Vec<Option<usize>> = Vec::with_capacity(pairs.len());
    for (index, &(_, at)) in pairs.iter().enumerate() {
        let pile = piles.partition_point(|&top| pairs[top].1 < at);
        before.push(pile.checked_sub(1).map(|left| piles[left]));
        if pile == piles.len() {
            piles.push(index);
        } else {
            piles[pile] = index;
        }
    }
    let mut run: Vec<_> = std::iter::successors(piles.last().copied(), |&pair| before[pair]).collect();
    run.reverse();
    run.into_iter().map(|pair| pairs[pair]).collect()
}

/// A longest common subsequence, passing over what is in `old` first where there is a choice.
fn longest_common_subsequence(old: &[u32], new: &[u32]) -> Vec<(usize, usize)> {
    let width = new.len() + 1;
    // lengths[i][j]: of the longest in old[i..] and new[j..].
    let mut lengths = vec![0u32; (old.len() + 1) * width];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            lengths[i * width + j] = if old[i] == new[j] {
                lengths[(i + 1) * width + j + 1] + 1
            } else {
                lengths[(i + 1) * width + j].max(lengths[i * width + j + 1])
            };
        }
    }
    let (mut i, mut j) = (0, 0);
    let mut kept = Vec::new();
    while i < old.len() && j < new.len() {
        if old[i] == new[j] {
            kept.push((i, j));
            (i, j) = (i + 1, j + 1);
        } else if lengths[(i + 1) * width + j] >= lengths[i * width + j + 1] {
            i += 1;
        } else {
            j += 1;
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    fn merged(base: &str, a: &str, b: &str) -> Option<String> {
        let text = |text: &str| -> Vec<u8> { text.chars().flat_map(|line| [line as u8, b'\n']).collect() };
        let merged = merge(&text(base), &text(a), &text(b))?;
        Some(String::from_utf8(merged).unwrap().replace('\n', ""))
    }

    #[rstest]
    #[case::other_lines("abcdef", "Abcdef", "abcdeF", Some("AbcdeF"))]
    #[case::only_one("abc", "abc", "axc", Some("axc"))]
    #[case::the_same("abc", "axc", "axc", Some("axc"))]
    #[case::the_same_and_more("abcde", "xbcde", "xbcdy", Some("xbcdy"))]
    #[case::inserted_apart("abcd", "aXbcd", "abcYd", Some("aXbcYd"))]
    #[case::removed_apart("abcde", "bcde", "abcd", Some("bcd"))]
    #[case::inserted_at_one_place("ab", "aXb", "aYb", None)]
    #[case::same_line("abc", "aXc", "aYc", None)]
    #[case::neighbours("abcd", "aXcd", "abYd", None)]
    #[case::removed_and_changed("abc", "ac", "aXc", None)]
    #[case::both_emptied("abc", "", "", Some(""))]
    #[case::emptied_and_changed("abc", "", "abX", None)]
    #[case::appended("ab", "abX", "abY", None)]
    #[case::repeated_lines("aaaa", "Xaaaa", "aaaaY", Some("XaaaaY"))]
    fn merges_by_lines(#[case] base: &str, #[case] a: &str, #[case] b: &str, #[case] expected: Option<&str>) {
        assert_eq!(merged(base, a, b).as_deref(), expected);
        assert_eq!(merged(base, b, a).as_deref(), expected);
    }

    #[test]
    fn a_line_end_that_is_missing_is_kept_so() {
        assert_eq!(merge(b"a\nb\nc", b"A\nb\nc", b"a\nb\nc").as_deref(), Some(&b"A\nb\nc"[..]));
        assert_eq!(merge(b"a\nb\nc\n", b"A\nb\nc\n", b"a\nb\nc").as_deref(), Some(&b"A\nb\nc"[..]));
    }

    #[test]
    fn a_line_is_changed_as_a_whole() {
        assert_eq!(merge(b"abc\n", b"Abc\n", b"abC\n"), None);
        let (a, b) = (b"Abc\nx\ndef\n", b"abc\nx\ndeF\n");
        assert_eq!(merge(b"abc\nx\ndef\n", a, b).as_deref(), Some(&b"Abc\nx\ndeF\n"[..]));
    }

    /// The lines that stay, those that go (`-`) and those that come (`+`).
    fn shown(old: &str, new: &str) -> String {
        let (old_lines, new_lines): (Vec<_>, Vec<_>) =
            (old.as_bytes().chunks(1).collect(), new.as_bytes().chunks(1).collect());
        let (mut shown, mut at) = (String::new(), 0);
        for change in changes(&old_lines, &new_lines) {
            shown.push_str(&old[at..change.old.start]);
            at = change.old.end;
            shown.extend(old[change.old].chars().flat_map(|line| ['-', line]));
            shown.extend(new[change.new].chars().flat_map(|line| ['+', line]));
        }
        shown + &old[at..]
    }

    // Which lines are taken for the same decides what is merged, and so the ids of commits: it must never change.
    #[rstest]
    #[case::beginnings_first("aab", "ab", "a-ab")]
    #[case::then_ends("abcbc", "bc", "-a-b-cbc")]
    #[case::what_stands_once_before_what_is_longer("abbb", "bbba", "+b+b+ba-b-b-b")]
    #[case::the_longest_run_of_those("abcd", "dabc", "+dabc-d")]
    #[case::of_runs_as_long_the_last("abcd", "cdab", "-a-bcd+a+b")]
    #[case::what_lies_between_likewise("axxbyyc", "cyybxxa", "-a-x-x-b-y-yc+y+y+b+x+x+a")]
    #[case::the_longest_subsequence_of_what_stands_often("abbaab", "baabba", "-ab-baab+b+a")]
    #[case::of_those_what_comes_later_in_the_old("aabb", "bbaa", "-a-abb+a+a")]
    fn which_lines_stay_is_part_of_the_format(#[case] old: &str, #[case] new: &str, #[case] expected: &str) {
        assert_eq!(shown(old, new), expected);
    }

    fn matched(old: &[u32], new: &[u32]) -> Vec<(usize, usize)> {
        let mut kept = Vec::new();
        match_lines(old, new, &mut kept);
        kept
    }

    /// The rules of [`match_lines`] in the plainest way, for texts of a few lines.
    fn plainly_matched(old: &[u32], new: &[u32]) -> Vec<(usize, usize)> {
        fn of_stretch(old: &[u32], new: &[u32], at: (usize, usize)) -> impl Iterator<Item = (usize, usize)> {
            plainly_matched(old, new).into_iter().map(move |(i, j)| (at.0 + i, at.1 + j))
        }
        let ([first_old, .., last_old] | [first_old @ last_old], [first_new, .., last_new] | [first_new @ last_new]) =
            (old, new)
        else {
            return Vec::new();
        };
        if first_old == first_new {
            return [(0, 0)].into_iter().chain(of_stretch(&old[1..], &new[1..], (1, 1))).collect();
        }
        if last_old == last_new {
            let (i, j) = (old.len() - 1, new.len() - 1);
            return of_stretch(&old[..i], &new[..j], (0, 0)).chain([(i, j)]).collect();
        }
        let once = |lines: &[u32], line| lines.iter().filter(|&&other| other == line).count() == 1;
        let once = old.iter().zip(0..).filter(|&(&line, _)| once(old, line) && once(new, line));
        let once: Vec<(usize, usize)> =
            once.filter_map(|(line, i)| Some((i, new.iter().position(|other| other == line)?))).collect();
        let runs = (0u32..1 << once.len()).map(|some| -> Vec<(usize, usize)> {
            once.iter().zip(0..).filter(|&(_, at)| some >> at & 1 == 1).map(|(&pair, _)| pair).collect()
        });
        let ordered = runs.filter(|run| run.is_sorted_by_key(|&(_, j)| j));
        let run = ordered.max_by_key(|run| (run.len(), run.iter().rev().map(|&(i, _)| i).collect::<Vec<_>>()));
        let run = run.unwrap_or_default();
        if run.is_empty() {
            return plain_subsequence(old, new);
        }
        let (mut kept, mut at) = (Vec::new(), (0, 0));
        for (i, j) in run {
            kept.extend(of_stretch(&old[at.0..i], &new[at.1..j], at));
            kept.push((i, j));
            at = (i + 1, j + 1);
        }
        kept.extend(of_stretch(&old[at.0..], &new[at.1..], at));
        kept
    }

    fn plain_subsequence(old: &[u32], new: &[u32]) -> Vec<(usize, usize)> {
        let moved = |kept: Vec<(usize, usize)>, by: (usize, usize)| -> Vec<(usize, usize)> {
            kept.into_iter().map(|(i, j)| (i + by.0, j + by.1)).collect()
        };
        match (old, new) {
            ([], _) | (_, []) => Vec::new(),
            ([line, old @ ..], [other, new @ ..]) if line == other => {
                [vec![(0, 0)], moved(plain_subsequence(old, new), (1, 1))].concat()
            }
            ([_, less_old @ ..], [_, less_new @ ..]) => {
                let passed_old = moved(plain_subsequence(less_old, new), (1, 0));
                let passed_new = moved(plain_subsequence(old, less_new), (0, 1));
                if passed_old.len() >= passed_new.len() { passed_old } else { passed_new }
            }
        }
    }

    /// All texts of up to `longest` lines, of so many different ones.
    fn texts(lines: u32, longest: u32) -> Vec<Vec<u32>> {
        let digits = |number: u32, length: u32| (0..length).map(|at| number / lines.pow(at) % lines).collect();
        (0..=longest).flat_map(|length| (0..lines.pow(length)).map(move |number| digits(number, length))).collect()
    }

    #[rstest]
    #[case(2, 6)]
    #[case(3, 4)]
    #[case(4, 3)]
    fn lines_are_matched_by_the_rules(#[case] lines: u32, #[case] longest: u32) {
        let texts = texts(lines, longest);
        for (old, new) in texts.iter().flat_map(|old| texts.iter().map(move |new| (old, new))) {
            assert_eq!(matched(old, new), plainly_matched(old, new), "{old:?} {new:?}");
        }
    }

    #[test]
    fn lines_in_another_order_are_matched_by_the_rules() {
        let old = [0, 1, 2, 3, 4];
        for new in texts(5, 5).into_iter().filter(|new| old.iter().all(|line| new.contains(line))) {
            assert_eq!(matched(&old, &new), plainly_matched(&old, &new), "{new:?}");
        }
    }

    #[test]
    fn a_few_changes_of_a_long_text_are_found() {
        let old: Vec<u32> = (0..3000).collect();
        let mut new = old.clone();
        for at in [0, 700, 1500, 2999] {
            new[at] = 9999;
        }
        assert_eq!(matched(&old, &new).len(), 3000 - 4);
    }

    #[rstest]
    #[case::just_not_too_long(2047, 2047, 2045)]
    #[case::old_too_long(2048, 2047, 0)]
    #[case::new_too_long(2047, 2048, 0)]
    fn a_stretch_is_compared_up_to_a_length(#[case] old: u32, #[case] new: u32, #[case] expected: usize) {
        // No line stands once, and neither the beginnings nor the ends are alike.
        let old: Vec<u32> = (0..old).map(|at| at % 2).collect();
        let new: Vec<u32> = (0..new).map(|at| if at == 0 || at == new - 1 { 2 } else { (at - 1) % 2 }).collect();
        assert_eq!(matched(&old, &new).len(), expected);
    }

    #[test]
    fn a_line_is_looked_at_so_often_and_no_more() {
        // Only one line stands once; to the right of it, another; and so on.
        let numbers = |count: u32| (0..count).flat_map(|number| [number + 1, number]).chain([count]);
        let old = |count| -> Vec<u32> { numbers(count).collect() };
        let new =
            |count| -> Vec<u32> { numbers(count).flat_map(|number| [u32::MAX, number]).chain([u32::MAX]).collect() };
        assert_eq!(matched(&old(60), &new(60)).len(), 121);
        // Of these 801, those that were found until then.
        assert_eq!(matched(&old(400), &new(400)).len(), 86);
    }

    #[test]
    fn a_stretch_too_long_to_compare_is_one_change() {
        let many = |line: &str, other: &str| format!("{line}{other}").repeat(3000).into_bytes();
        let (base, a) = (many("x\n", "y\n"), many("y\ny\n", "x\n"));
        assert_eq!(merge(&base, &a, &base), Some(a));
    }

    proptest! {
        #[test]
        fn the_order_of_the_sides_does_not_matter(base in "[abc]{0,12}", a in "[abcd]{0,12}", b in "[abcd]{0,12}") {
            prop_assert_eq!(merged(&base, &a, &b), merged(&base, &b, &a));
            prop_assert_eq!(merged(&base, &a, &a), Some(a.clone()));
            prop_assert_eq!(merged(&base, &a, &base), Some(a));
        }

        #[test]
        fn changes_make_one_text_of_the_other(old in "[a-d]{0,12}", new in "[a-e]{0,12}") {
            let old: Vec<&[u8]> = old.as_bytes().chunks(1).collect();
            let new: Vec<&[u8]> = new.as_bytes().chunks(1).collect();
            let (mut made, mut at) = (Vec::new(), None);
            for change in changes(&old, &new) {
                // Lines that stay are between any two.
                prop_assert!(at.is_none_or(|at| at < change.old.start), "{change:?}");
                prop_assert!(!(change.old.is_empty() && change.new.is_empty()), "{change:?}");
                made.extend_from_slice(&old[at.unwrap_or(0)..change.old.start]);
                prop_assert_eq!(made.len(), change.new.start);
                made.extend_from_slice(&new[change.new]);
                at = Some(change.old.end);
            }
            made.extend_from_slice(&old[at.unwrap_or(0)..]);
            prop_assert_eq!(made, new);
        }

        #[test]
        fn lines_that_a_side_added_stand_in_the_result(base in "[a-h]{1,12}", a in "[a-j]{0,12}", b in "[a-j]{0,12}") {
            // Every line that one side alone has added stands in the result.
            if let Some(merged) = merged(&base, &a, &b) {
                for added in ["i", "j"] {
                    let count = |text: &str| text.matches(added).count();
                    prop_assert!(count(&merged) >= count(&a).max(count(&b)));
                    prop_assert!(count(&merged) <= count(&a) + count(&b));
                }
            }
        }
    }
}
