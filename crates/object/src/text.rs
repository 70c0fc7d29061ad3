//! An object's bytes in memory: whole, or told by what they do not share with a model.
//!
//! Objects of one kind look alike: the pods of a Deployment differ in a name, a uid and some times. So most objects are kept as
//! a short script over the bytes of another one: copy from there, write this, copy from there. Reading that back is copying
//! memory, and less of it than if each object had all bytes of its own.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

/// Shorter texts are not worth a script.
const BYTES_MIN: usize = 256;
/// Longer texts are neither models nor told by one: the model's index is as large as the model.
const BYTES_MAX: usize = 16 << 10;
/// How many models a kind has: the newest states that looked unlike those before.
const MODELS_MAX: usize = 4;
/// A script may be this part of the text at most, or the text is kept whole.
const SCRIPT_PART: usize = 4;
/// What is looked up in a model: so many bytes at a time.
const WINDOW: usize = 8;
/// Every so many bytes of a model are in its index.
const STEP: usize = 4;
/// Places of a text that are looked up first: most must be found, or the text is unlike the model.
const SAMPLES: usize = 16;

/// Immutable bytes.
#[derive(Clone)]
pub(crate) enum Text {
    Whole(Bytes),
    Like(Like),
}

/// Bytes that are told by a model.
#[derive(Clone)]
pub(crate) struct Like {
    model: Arc<Bytes>,
    /// Again and again: how many bytes follow, these bytes, how many to copy from the model, and from where, counted from where
    /// the last copy ended. Numbers in base 128, the last one zigzag.
    script: Box<[u8]>,
    length: u32,
}

impl Text {
    pub fn len(&self) -> usize {
        match self {
            Text::Whole(bytes) => bytes.len(),
            Text::Like(like) => like.length as usize,
        }
    }

    /// What this text alone takes of memory, in bytes; its model is another's, too.
    pub fn own_bytes(&self) -> usize {
        match self {
            Text::Whole(bytes) => bytes.len(),
            Text::Like(like) => like.script.len(),
        }
    }

    /// All bytes in one piece.
    pub fn to_bytes(&self) -> Bytes {
        match self {
            Text::Whole(bytes) => bytes.clone(),
            Text::Like(like) => {
                let mut out = Vec::with_capacity(like.length as usize);
                self.append(0, like.length as usize, &mut out);
                out.into()
            }
        }
    }

    /// Appends the bytes of a range.
    pub fn append(&self, from: usize, to: usize, out: &mut Vec<u8>) {
        let mut at = 0;
        for piece in self.pieces() {
            if at >= to {
                break;
            }
            let end = at + piece.len();
            if end > from {
                out.extend_from_slice(&piece[from.saturating_sub(at)..piece.len().min(to - at)]);
            }
            at = end;
        }
    }

    /// Whether these are the bytes.
    pub fn is(&self, bytes: &[u8]) -> bool {
        self.len() == bytes.len() && self.starts_with(bytes)
    }

    /// Whether the bytes begin with these.
    pub fn starts_with(&self, bytes: &[u8]) -> bool {
        self.has_at(0, bytes)
    }

    /// Whether these bytes stand at a place.
    pub fn has_at(&self, from: usize, mut bytes: &[u8]) -> bool {
        let mut skip = from;
        for mut piece in self.pieces() {
            let skipped = skip.min(piece.len());
            (piece, skip) = (&piece[skipped..], skip - skipped);
            let length = piece.len().min(bytes.len());
            if piece[..length] != bytes[..length] {
                return false;
            }
            bytes = &bytes[length..];
            if bytes.is_empty() {
                return true;
            }
        }
        bytes.is_empty()
    }

    fn pieces(&self) -> Pieces<'_> {
        match self {
            Text::Whole(bytes) => Pieces { model: bytes, script: &[], next: bytes, end: 0 },
            Text::Like(like) => Pieces { model: &like.model, script: &like.script, next: &[], end: 0 },
        }
    }
}

/// The pieces that make a text.
struct Pieces<'t> {
    model: &'t [u8],
    script: &'t [u8],
    /// A piece that is known already; empty: none.
    next: &'t [u8],
    /// Where the last copy ended in the model.
    end: usize,
}

impl<'t> Iterator for Pieces<'t> {
    type Item = &'t [u8];

    fn next(&mut self) -> Option<&'t [u8]> {
        if !self.next.is_empty() {
            return Some(std::mem::take(&mut self.next));
        }
        if self.script.is_empty() {
            return None;
        }
        let length = number(&mut self.script);
        let (literal, rest) = self.script.split_at_checked(length)?;
        self.script = rest;
        let length = number(&mut self.script);
        let from = (self.end as i64 + unzigzag(number(&mut self.script))) as usize;
        self.end = from + length;
        let copied = self.model.get(from..self.end)?;
        if literal.is_empty() {
            return Some(copied);
        }
        self.next = copied;
        Some(literal)
    }
}

/// The models of one kind, the one that served last first.
#[derive(Default)]
pub struct Models(VecDeque<Model>);

struct Model {
    bytes: Arc<Bytes>,
    /// By hash: a place in the model and one, or zero.
    index: Box<[u16]>,
}

impl Models {
    /// The same bytes in less memory, if they are like some that came before; else as they are, and a model from now on.
    pub(crate) fn fold(&mut self, bytes: Bytes) -> Text {
        if !(BYTES_MIN..=BYTES_MAX).contains(&bytes.len()) {
            return Text::Whole(bytes);
        }
        let found = self.0.iter().enumerate().find_map(|(at, model)| Some((at, model.like(&bytes)?)));
        if let Some((at, like)) = found {
            if at > 0
                && let Some(model) = self.0.remove(at)
            {
                self.0.push_front(model);
            }
            return Text::Like(like);
        }
        self.0.truncate(MODELS_MAX - 1);
        self.0.push_front(Model::new(bytes.clone()));
        Text::Whole(bytes)
    }
}

impl Model {
    fn new(bytes: Bytes) -> Model {
        let mut index = vec![0; (bytes.len() / 2).next_power_of_two()].into_boxed_slice();
        for (at, window) in bytes.windows(WINDOW).enumerate().step_by(STEP) {
            index[hash(window, index.len())] = at as u16 + 1;
        }
        Model { bytes: Arc::new(bytes), index }
    }

    /// Where in the model the first bytes of a text stand.
    fn find(&self, text: &[u8]) -> Option<usize> {
        let window = text.get(..WINDOW)?;
        let at = usize::from(self.index[hash(window, self.index.len())]).checked_sub(1)?;
        (self.bytes.get(at..at + WINDOW)? == window).then_some(at)
    }

    /// A text as a script over this model, if that is short.
    fn like(&self, text: &[u8]) -> Option<Like> {
        let stride = text.len() / SAMPLES;
        let hit = |sample: &usize| (0..STEP).any(|shift| self.find(&text[sample * stride + shift..]).is_some());
        if (0..SAMPLES).filter(hit).count() * 2 < SAMPLES {
            return None;
        }
        let most = text.len() / SCRIPT_PART;
        let mut script = Vec::with_capacity(most.min(512));
        // What was told, where the copy before ended in the model, and where in the text a match is looked for.
        let (mut told, mut end, mut at) = (0, 0, 0);
        while at < text.len() {
            // A replaced part of the same length is the most likely.
            let beside = end + (at - told);
            let same = |place: &usize| self.bytes.get(*place..*place + WINDOW) == text.get(at..at + WINDOW);
            let Some(mut from) =
                Some(beside).filter(|p| at + WINDOW <= text.len() && same(p)).or_else(|| self.find(&text[at..]))
            else {
                at += 1;
                if at - told + script.len() > most {
                    return None;
                }
                continue;
            };
            let mut length = common(&self.bytes[from..], &text[at..]);
            while at > told && from > 0 && self.bytes[from - 1] == text[at - 1] {
                (from, at, length) = (from - 1, at - 1, length + 1);
            }
            push(&mut script, &text[told..at], length, from as i64 - end as i64);
            (told, end, at) = (at + length, from + length, at + length);
        }
        if told < text.len() {
            push(&mut script, &text[told..], 0, 0);
        }
        let length = text.len() as u32;
        (script.len() <= most).then(|| Like { model: self.bytes.clone(), script: script.into(), length })
    }
}

fn hash(window: &[u8], slots: usize) -> usize {
    let word = window.try_into().map_or(0, u64::from_le_bytes);
    (word.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize & (slots - 1)
}

/// How many bytes two texts have in common at their beginning.
fn common(a: &[u8], b: &[u8]) -> usize {
    let words = a.chunks_exact(8).zip(b.chunks_exact(8)).take_while(|(a, b)| a == b).count() * 8;
    words + a[words..].iter().zip(&b[words..]).take_while(|(a, b)| a == b).count()
}

fn push(script: &mut Vec<u8>, literal: &[u8], length: usize, skip: i64) {
    push_number(script, literal.len());
    script.extend_from_slice(literal);
    push_number(script, length);
    push_number(script, zigzag(skip));
}

fn zigzag(n: i64) -> usize {
    ((n << 1) ^ (n >> 63)) as usize
}

fn unzigzag(n: usize) -> i64 {
    (n >> 1) as i64 ^ -((n & 1) as i64)
}

fn push_number(out: &mut Vec<u8>, mut n: usize) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

fn number(script: &mut &[u8]) -> usize {
    let (mut n, mut shift) = (0, 0);
    while let Some((byte, rest)) = script.split_first() {
        *script = rest;
        n |= usize::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            break;
        }
    }
    n
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pod(n: usize) -> Bytes {
        let time = format!("2026-11-27T10:{:02}:{:02}Z", n / 60 % 60, n % 60);
        let uid = format!("{:08x}-1c5e-4bd4-9c61-{:012x}", n.wrapping_mul(2_654_435_761) as u32, n * 7919 + 1_000_000);
        let fields = r#"{"f:metadata":{"f:labels":{".":{},"f:app":{}}},"f:spec":{"f:containers":{"k:{\"name\":\"web\"}":{".":{},"f:image":{},"f:name":{}}}}}"#;
        let container = r#"{"name":"web","image":"registry.example/shop/web:1.42.0","resources":{"requests":{"cpu":"100m","memory":"128Mi"}},"terminationMessagePath":"/dev/termination-log","terminationMessagePolicy":"File","imagePullPolicy":"IfNotPresent"}"#;
        format!(
            r#"{{"kind":"Pod","apiVersion":"v1","metadata":{{"name":"web-7d9c5b8f6-{n}","namespace":"shop","uid":"{uid}","creationTimestamp":"{time}","labels":{{"app":"web"}},"managedFields":[{{"manager":"m","operation":"Update","time":"{time}","fieldsV1":{fields}}}]}},"spec":{{"containers":[{container}],"restartPolicy":"Always","dnsPolicy":"ClusterFirst","schedulerName":"default-scheduler"}},"status":{{"phase":"Pending","qosClass":"Burstable"}}}}"#
        )
        .into()
    }

    #[test]
    fn objects_that_look_alike_share_their_bytes() {
        let mut models = Models::default();
        let first = models.fold(pod(0));
        assert!(matches!(first, Text::Whole(_)));
        for n in 1..2000 {
            let (bytes, text) = (pod(n), models.fold(pod(n)));
            assert!(text.own_bytes() < 130, "{} of {} bytes", text.own_bytes(), bytes.len());
            assert_eq!(text.to_bytes(), bytes);
            assert!(text.is(&bytes) && !text.is(&pod(n + 1)) && text.starts_with(&bytes[..100]));
        }
        assert_eq!(models.0.len(), 1);
    }

    #[test]
    fn unlike_texts_stay_whole_and_models_are_few() {
        let mut models = Models::default();
        let unlike = |n: u64| {
            let mut state = n;
            let letters = std::iter::repeat_with(|| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                b'a' + (state >> 59) as u8 % 26
            });
            Bytes::from(letters.take(1000).collect::<Vec<u8>>())
        };
        for n in 0..20 {
            assert!(matches!(models.fold(unlike(n)), Text::Whole(_)));
            assert!(models.0.len() <= MODELS_MAX);
        }
        // The newest are models; the oldest were forgotten.
        assert!(matches!(models.fold(unlike(19)), Text::Like(_)));
        assert!(matches!(models.fold(unlike(0)), Text::Whole(_)));
        for length in [0, 1, BYTES_MIN - 1, BYTES_MAX + 1] {
            let before = models.0.len();
            assert!(matches!(models.fold(vec![b'x'; length].into()), Text::Whole(_)));
            assert_eq!(models.0.len(), before);
        }
    }

    proptest! {
        /// Whatever was done to a text, it reads as it was written, in one piece and in parts.
        #[test]
        fn a_text_reads_as_it_was_written(
            base in proptest::collection::vec(0_u8..4, 256..3000),
            edits in proptest::collection::vec((any::<usize>(), 0_usize..40, proptest::collection::vec(any::<u8>(), 0..30)), 0..6),
            cut in (any::<usize>(), any::<usize>()),
        ) {
            let mut text = base.clone();
            for (at, gone, new) in edits {
                let at = at % (text.len() + 1);
                let end = (at + gone).min(text.len());
                text.splice(at..end, new);
            }
            let mut models = Models::default();
            models.fold(base.into());
            let folded = models.fold(text.clone().into());
            prop_assert_eq!(folded.to_bytes(), &text);
            prop_assert!(folded.is(&text));
            let (a, b) = (cut.0 % (text.len() + 1), cut.1 % (text.len() + 1));
            let (from, to) = (a.min(b), a.max(b));
            let mut part = Vec::new();
            folded.append(from, to, &mut part);
            prop_assert_eq!(&part, &text[from..to]);
        }
    }
}
