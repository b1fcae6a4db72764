//! Stop strings: texts that end a generation wherever they appear, across tokens too.

/// Watches a text for stop strings as it arrives.
///
/// What may be the beginning of a stop string is held back until it is clear that it is not one.
/// How the text is cut into pieces makes no difference.
#[derive(Clone, Debug, Default)]
pub struct StopStrings {
    stops: Vec<String>,
    held: String,
}

/// What [`StopStrings::push`] found out.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Checked {
    /// Text that can be shown: none of it is part of a stop string.
    pub text: String,
    /// The stop string that has appeared, if any. Nothing after it counts.
    pub stop: Option<String>,
}

impl StopStrings {
    /// Watches for any of `stops`. Empty ones are ignored.
    pub fn new(stops: impl IntoIterator<Item = impl Into<String>>) -> StopStrings {
        let stops = stops.into_iter().map(Into::into).filter(|stop| !stop.is_empty());
        StopStrings { stops: stops.collect(), held: String::new() }
    }

    /// Takes the next piece of text.
    pub fn push(&mut self, text: &str) -> Checked {
        if self.stops.is_empty() {
            return Checked { text: text.to_owned(), stop: None };
        }
        self.held.push_str(text);
        // The first to be complete counts, whichever piece completes it.
        let found = self.stops.iter().filter_map(|stop| {
            let start = self.held.find(stop.as_str())?;
            Some((start + stop.len(), start, stop))
        });
        if let Some((_, start, stop)) = found.min() {
            let stop = Some(stop.clone());
            let text = std::mem::take(&mut self.held);
            return Checked { text: text[..start].to_owned(), stop };
        }
        let shown = self.held.len() - self.undecided();
        let rest = self.held.split_off(shown);
        Checked { text: std::mem::replace(&mut self.held, rest), stop: None }
    }

    /// Ends the text: what was held back was no stop string.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// The length of the longest end of the held text that begins a stop string.
    fn undecided(&self) -> usize {
        let longest = |stop: &String| {
            let beginnings = stop.char_indices().map(|(end, _)| &stop[..end]).rev();
            beginnings.into_iter().find(|beginning| self.held.ends_with(beginning)).map_or(0, str::len)
        };
        self.stops.iter().map(longest).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::*;

    fn run(stops: &[&str], pieces: &[&str]) -> (String, Option<String>) {
        let mut watch = StopStrings::new(stops.iter().copied());
        let mut shown = String::new();
        for piece in pieces {
            let checked = watch.push(piece);
            shown += &checked.text;
            if checked.stop.is_some() {
                return (shown, checked.stop);
            }
        }
        (shown + &watch.finish(), None)
    }

    #[test]
    fn stops_are_found_across_pieces() {
        type Case = (&'static [&'static str], &'static [&'static str], &'static str, Option<&'static str>);
        let cases: [Case; 6] = [
            (&["</s>"], &["Hi <", "/s", "> and more"], "Hi ", Some("</s>")),
            (&["</s>"], &["a < b", "</", "p>"], "a < b</p>", None),
            (&["abc", "b"], &["xabc"], "xa", Some("b")),
            (&["aab"], &["aa", "ab"], "a", Some("aab")),
            (&["ü!", ""], &["ü", "ü", "!"], "ü", Some("ü!")),
            (&[], &["a", "b"], "ab", None),
        ];
        for (stops, pieces, shown, stop) in cases {
            assert_eq!(run(stops, pieces), (shown.into(), stop.map(str::to_owned)), "{pieces:?}");
        }
    }

    #[test]
    fn only_possible_beginnings_are_held_back() {
        let mut watch = StopStrings::new(["STOP"]);
        assert_eq!(watch.push("text ST").text, "text ");
        assert_eq!(watch.push("AR").text, "STAR");
        assert_eq!(watch.push("S").text, "");
        assert_eq!(watch.finish(), "S");
    }

    #[test]
    fn the_cutting_makes_no_difference() {
        let mut rng = StdRng::seed_from_u64(7);
        for _ in 0..2000 {
            let mut word = |len: usize| (0..len).map(|_| ['a', 'b', 'é'][rng.random_range(0..3)]).collect::<String>();
            let (text, stops) = (word(12), [word(1 + 2), word(2), word(4)]);
            let stops = stops.each_ref().map(String::as_str);
            let chars: Vec<String> = text.chars().map(String::from).collect();
            let pieces: Vec<&str> = chars.iter().map(String::as_str).collect();
            assert_eq!(run(&stops, &pieces), run(&stops, &[&text]), "{text} {stops:?}");
        }
    }
}
