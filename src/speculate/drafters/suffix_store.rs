//! Finished answers of earlier conversations, for `suffix` and `hierarchy`: SuffixDecoding's global tree (arXiv 2411.04975)
//! over a sliding window of answers as in DAS (arXiv 2511.13841).
//!
//! Whole conversations are evicted, the oldest first. An automaton cannot forget, so it is built anew from the window each
//! time a quarter of it has been replaced; DAS rebuilds its trees too. Bounded by its capacity in tokens, about 150 bytes each.
//!
//! Saved as little-endian words: magic (2), version, vocabulary, tokenizer (2, the low one first), capacity, conversations,
//! tokens, the length of each conversation, the tokens of all; then the SHA-256 of everything before it.

use super::automaton::{Automaton, SEPARATOR};
use crate::error::{Error, Result};
use sha2::{Digest, Sha256};
use std::collections::VecDeque;

/// Tokens that a store holds where its owner does not say: about 20 MB.
pub const STORE_TOKENS: usize = 1 << 17;
/// Tokens that a store may hold at most.
pub const MAX_STORE_TOKENS: usize = 1 << 19;
const MAGIC: [u32; 2] = [u32::from_le_bytes(*b"fore"), u32::from_le_bytes(*b"sufx")];
const VERSION: u32 = 2;
const HEADER_WORDS: usize = 9;
const CHECKSUM_BYTES: usize = 32;

/// Tells tokenizers apart, also those of equally many tokens: FNV-1a (64 bits) of the texts of all tokens in their order, each
/// ended by a byte that no text has.
pub fn fingerprint<'a>(texts: impl Iterator<Item = &'a str>) -> u64 {
    let bytes = texts.flat_map(|text| text.bytes().chain([0xff]));
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// A bounded window of conversations, and the automaton of it.
#[derive(Debug, Clone)]
pub struct SuffixStore {
    vocabulary: u32,
    /// The [`fingerprint`] of the tokenizer.
    tokenizer: u64,
    capacity: usize,
    conversations: VecDeque<Vec<u32>>,
    tokens: usize,
    automaton: Automaton,
    /// Of the newest conversations so many are not among bytes that were loaded or saved.
    unsaved: usize,
    /// The checksum of those bytes; zeros where there are none.
    saved: [u8; CHECKSUM_BYTES],
    /// The checksum of bytes that were given out to be kept, and how many unsaved conversations are among them.
    offered: Option<([u8; CHECKSUM_BYTES], usize)>,
}

impl SuffixStore {
    /// An empty store of tokens below `vocabulary` of the tokenizer with this [`fingerprint`], at most `capacity` of them (and
    /// at most [`MAX_STORE_TOKENS`]).
    pub fn new(vocabulary: usize, tokenizer: u64, capacity: usize) -> SuffixStore {
        SuffixStore {
            vocabulary: vocabulary.min(SEPARATOR as usize) as u32,
            tokenizer,
            capacity: capacity.clamp(1, MAX_STORE_TOKENS),
            conversations: VecDeque::new(),
            tokens: 0,
            automaton: Automaton::new(true),
            unsaved: 0,
            saved: [0; CHECKSUM_BYTES],
            offered: None,
        }
    }

    /// Tokens that it may hold.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Changes how many tokens it may hold; of what is too much the newest stay.
    pub fn limit(&mut self, capacity: usize) {
        let mut store = SuffixStore::new(self.vocabulary as usize, self.tokenizer, capacity);
        if store.capacity != self.capacity {
            self.conversations.iter().for_each(|conversation| store.add(conversation));
            store.unsaved = self.unsaved.min(store.conversations.len());
            *self = store;
        }
    }

    /// The [`fingerprint`] of its tokenizer.
    pub fn tokenizer(&self) -> u64 {
        self.tokenizer
    }

    /// Tokens held.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Conversations held, the oldest first.
    pub fn conversations(&self) -> impl ExactSizeIterator<Item = &[u32]> {
        self.conversations.iter().map(Vec::as_slice)
    }

    /// Of all conversations, a separator before each.
    pub fn automaton(&self) -> &Automaton {
        &self.automaton
    }

    /// Adds a finished conversation. Of one longer than the store the end is kept; one of foreign tokens is not taken.
    pub fn add(&mut self, tokens: &[u32]) {
        let kept = &tokens[tokens.len().saturating_sub(self.capacity)..];
        if kept.is_empty() || kept.iter().any(|&token| token >= self.vocabulary) {
            return;
        }
        self.tokens += kept.len();
        self.conversations.push_back(kept.to_vec());
        self.unsaved += 1;
        if self.tokens <= self.capacity {
            self.index(kept);
            return;
        }
        // Room for a while: building anew is paid for by the tokens that come before the next time.
        while self.conversations.len() > 1 && self.tokens > self.capacity * 3 / 4 {
            self.tokens -= self.conversations.pop_front().map_or(0, |gone| gone.len());
        }
        self.unsaved = self.unsaved.min(self.conversations.len());
        self.automaton = Automaton::new(true);
        for conversation in std::mem::take(&mut self.conversations) {
            self.index(&conversation);
            self.conversations.push_back(conversation);
        }
    }

    fn index(&mut self, conversation: &[u32]) {
        self.automaton.push(SEPARATOR);
        conversation.iter().for_each(|&token| self.automaton.push(token));
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        *self = SuffixStore::new(self.vocabulary as usize, self.tokenizer, self.capacity);
    }

    /// As bytes.
    pub fn save(&self) -> Vec<u8> {
        let counts = [self.conversations.len(), self.tokens].map(|count| count as u32);
        let tokenizer = [self.tokenizer as u32, (self.tokenizer >> 32) as u32];
        let header = MAGIC.into_iter().chain([VERSION, self.vocabulary]).chain(tokenizer);
        let header = header.chain([self.capacity as u32]).chain(counts);
        let lengths = self.conversations.iter().map(|conversation| conversation.len() as u32);
        let words = header.chain(lengths).chain(self.conversations.iter().flatten().copied());
        let mut bytes: Vec<u8> = words.flat_map(u32::to_le_bytes).collect();
        let checksum = Sha256::digest(&bytes);
        bytes.extend_from_slice(&checksum);
        bytes
    }

    /// As bytes to keep in place of those that are kept, which another engine may have written since these were last saved or
    /// loaded: its conversations come first then, and what is not among them of this store after them, in both. What is
    /// kept and cannot be loaded is replaced; where nothing is kept any more, somebody wanted it forgotten. Once they are
    /// kept, [`SuffixStore::is_saved`] is to be told: what was not goes with the next ones.
    pub fn save_over(&mut self, kept: Option<&[u8]>) -> Vec<u8> {
        let current = kept.is_some_and(|bytes| bytes.ends_with(&self.saved));
        let mut others = SuffixStore::new(self.vocabulary as usize, self.tokenizer, self.capacity);
        if !current && kept.is_none_or(|bytes| others.load(bytes).is_ok()) {
            others.limit(self.capacity);
            let first = self.conversations.len() - self.unsaved;
            self.conversations.range(first..).for_each(|conversation| others.add(conversation));
            *self = others;
        }
        let bytes = self.save();
        let mut checksum = [0; CHECKSUM_BYTES];
        checksum.copy_from_slice(&bytes[bytes.len() - CHECKSUM_BYTES..]);
        self.offered = Some((checksum, self.unsaved));
        bytes
    }

    /// The bytes that [`SuffixStore::save_over`] gave out last are kept.
    pub fn is_saved(&mut self) {
        if let Some((checksum, count)) = self.offered.take() {
            self.saved = checksum;
            self.unsaved -= count.min(self.unsaved);
        }
    }

    /// Takes bytes that [`SuffixStore::save`] wrote in place of what it holds. Nothing is believed before it is checked: what
    /// is damaged, cut, longer than it says, of another version or of another tokenizer is an error that says where, and
    /// changes nothing.
    pub fn load(&mut self, bytes: &[u8]) -> Result<()> {
        let bad = |field: &str, found: String, expected: String| {
            let (what, field) = ("suffix store".to_owned(), field.to_owned());
            Err(Error::BadHeader { what, field, found, expected })
        };
        let least = HEADER_WORDS * 4 + CHECKSUM_BYTES;
        if bytes.len() < least || !bytes.len().is_multiple_of(4) {
            return bad("length", format!("{} bytes", bytes.len()), format!("whole words, at least {least} bytes"));
        }
        let (body, checksum) = bytes.split_at(bytes.len() - CHECKSUM_BYTES);
        let words = || body.chunks_exact(4).map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]]));
        let header: Vec<u32> = words().take(HEADER_WORDS).collect();
        let [magic0, magic1, version, vocabulary, low, high, capacity, conversations, tokens] = header[..] else {
            return bad("header", format!("{} words", header.len()), HEADER_WORDS.to_string());
        };
        if [magic0, magic1] != MAGIC {
            return bad("magic", format!("{magic0:08x} {magic1:08x}"), format!("{:08x} {:08x}", MAGIC[0], MAGIC[1]));
        }
        if version != VERSION {
            return bad("version", version.to_string(), VERSION.to_string());
        }
        let (conversations, tokens, capacity) = (conversations as usize, tokens as usize, capacity as usize);
        if !(1..=MAX_STORE_TOKENS).contains(&capacity) || tokens > capacity || conversations > tokens {
            let found = format!("{conversations} conversations of {tokens} tokens in {capacity}");
            return bad("counts", found, format!("conversations <= tokens <= capacity <= {MAX_STORE_TOKENS}"));
        }
        let expected = HEADER_WORDS + conversations + tokens;
        if body.len() != expected * 4 {
            return bad("length", format!("{} bytes", bytes.len()), (expected * 4 + CHECKSUM_BYTES).to_string());
        }
        if Sha256::digest(body).as_slice() != checksum {
            return bad("checksum", "another".to_owned(), "that of the content".to_owned());
        }
        if vocabulary != self.vocabulary {
            return bad("vocabulary", vocabulary.to_string(), self.vocabulary.to_string());
        }
        let tokenizer = u64::from(high) << 32 | u64::from(low);
        if tokenizer != self.tokenizer {
            return bad("tokenizer", format!("{tokenizer:016x}"), format!("{:016x}", self.tokenizer));
        }
        // From here on only a writer that lies can be at fault; its word is still not taken.
        let lengths: Vec<usize> = words().skip(HEADER_WORDS).take(conversations).map(|len| len as usize).collect();
        if lengths.contains(&0) || lengths.iter().try_fold(0usize, |sum, &len| sum.checked_add(len)) != Some(tokens) {
            return bad("conversation lengths", "others".to_owned(), format!("positive, {tokens} in all"));
        }
        let mut store = SuffixStore::new(vocabulary as usize, tokenizer, capacity);
        let mut rest = words().skip(HEADER_WORDS + conversations);
        for len in lengths {
            let conversation: Vec<u32> = rest.by_ref().take(len).collect();
            if let Some(token) = conversation.iter().find(|&&token| token >= store.vocabulary) {
                return bad("token", token.to_string(), format!("below {vocabulary}"));
            }
            store.add(&conversation);
        }
        store.unsaved = 0;
        store.saved.copy_from_slice(checksum);
        *self = store;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::automaton::tests::random;
    use super::*;
    use proptest::prelude::*;

    fn filled() -> SuffixStore {
        let mut store = SuffixStore::new(1000, 7, 500);
        (0..12).for_each(|seed| store.add(&random(20 + seed as usize, 900, seed)));
        store
    }

    fn loaded(bytes: &[u8]) -> Result<SuffixStore> {
        let mut store = SuffixStore::new(1000, 7, 500);
        store.load(bytes).map(|()| store)
    }

    #[test]
    fn the_oldest_conversations_go_first_and_the_cap_holds() {
        let mut store = SuffixStore::new(100, 7, 100);
        for at in 0..50u32 {
            store.add(&[at; 9]);
            assert!(store.tokens() <= 100 && store.automaton.text().len() <= 112, "{} tokens", store.tokens());
            assert_eq!(store.conversations().last(), Some(&[at; 9][..]), "the newest is there");
        }
        let held: Vec<u32> = store.conversations().map(|conversation| conversation[0]).collect();
        assert!(held.windows(2).all(|pair| pair[0] + 1 == pair[1]) && held.len() >= 8, "{held:?}");
        let find = |token| store.automaton().advance(Default::default(), token).len;
        assert_eq!((find(0), find(49)), (0, 1), "what was evicted is not found any more");
        store.add(&random(300, 100, 1));
        assert_eq!((store.tokens(), store.conversations().len()), (100, 1), "of a long one the end is kept");
        store.add(&[5, 100]);
        assert_eq!(store.tokens(), 100, "tokens of another vocabulary are not taken");
    }

    #[test]
    fn a_lower_limit_keeps_the_newest() {
        let mut store = filled();
        let newest = store.conversations().last().map(<[u32]>::to_vec);
        store.limit(40);
        assert_eq!((store.capacity(), store.conversations().last().map(<[u32]>::to_vec)), (40, newest));
        assert!(store.tokens() <= 40);
    }

    #[test]
    fn what_is_saved_comes_back() {
        for store in [filled(), SuffixStore::new(1000, 7, 9)] {
            let loaded = loaded(&store.save()).expect("valid");
            assert_eq!(loaded.save(), store.save());
            assert!(loaded.conversations().eq(store.conversations()));
            assert_eq!(loaded.automaton.text(), store.automaton.text());
        }
    }

    #[test]
    fn two_that_save_in_turn_lose_nothing_of_each_other() {
        let [mut one, mut two] = [(); 2].map(|()| SuffixStore::new(1000, 7, 500));
        let held = |store: &SuffixStore| store.conversations().map(|tokens| tokens[0]).collect::<Vec<_>>();
        let save = |store: &mut SuffixStore, kept: Option<&[u8]>| {
            let bytes = store.save_over(kept);
            store.is_saved();
            bytes
        };
        one.add(&[1; 9]);
        let mut kept = save(&mut one, None);
        two.load(&kept).expect("valid");
        // Both go on from there, one of them for two answers.
        two.add(&[2; 9]);
        kept = save(&mut two, Some(&kept));
        one.add(&[3; 9]);
        one.add(&[4; 9]);
        kept = save(&mut one, Some(&kept));
        assert_eq!(held(&one), [1, 2, 3, 4]);
        two.add(&[5; 9]);
        kept = save(&mut two, Some(&kept));
        assert_eq!((held(&two), held(&loaded(&kept).expect("valid"))), (vec![1, 2, 3, 4, 5], vec![1, 2, 3, 4, 5]));
        assert_eq!(two.automaton.text(), loaded(&kept).expect("valid").automaton.text());
        // Its own bytes are there: there is nothing to merge.
        two.add(&[6; 9]);
        assert_eq!(loaded(&save(&mut two, Some(&kept))).expect("valid").save(), two.save());
        // Damaged bytes are replaced by all that is known, and of bytes that were deleted nothing comes back.
        one.add(&[7; 9]);
        kept = save(&mut one, Some(&kept[4..]));
        assert_eq!(held(&loaded(&kept).expect("valid")), [1, 2, 3, 4, 7]);
        one.add(&[8; 9]);
        kept = save(&mut one, None);
        assert_eq!((held(&one), held(&loaded(&kept).expect("valid"))), (vec![8], vec![8]));
        // The cap holds, and what is new here survives it.
        let mut full = SuffixStore::new(1000, 7, 500);
        (0..20).for_each(|_| full.add(&[9; 24]));
        one.add(&[10; 30]);
        save(&mut one, Some(&full.save()));
        assert!(one.tokens() <= 500 && held(&one).ends_with(&[9, 10]), "{:?}", held(&one));
    }

    #[test]
    fn what_could_not_be_kept_goes_with_the_next() {
        let mut store = SuffixStore::new(1000, 7, 500);
        store.add(&[1; 9]);
        store.save_over(None);
        store.add(&[2; 9]);
        let kept = store.save_over(None);
        store.add(&[3; 9]);
        store.is_saved();
        let again = store.save_over(Some(&kept));
        let held =
            |bytes: &[u8]| loaded(bytes).expect("valid").conversations().map(|tokens| tokens[0]).collect::<Vec<_>>();
        assert_eq!((held(&kept), held(&again)), (vec![1, 2], vec![1, 2, 3]), "a full disk is no reason to forget");
    }

    #[test]
    fn what_another_model_or_version_saved_is_refused() {
        for (mut other, field) in
            [(SuffixStore::new(1001, 7, 500), "vocabulary"), (SuffixStore::new(1000, 7 << 32, 500), "tokenizer")]
        {
            other.add(&[999]);
            let error = other.load(&filled().save()).expect_err(field);
            assert!(error.code() == "bad_header" && error.to_string().contains(field), "{error}");
            assert_eq!(other.tokens(), 1, "nothing changed");
        }
        let mut old = filled().save();
        old[8] -= 1;
        assert!(loaded(&old).expect_err("an old version").to_string().contains("version is 1, expected 2"));
    }

    #[test]
    fn tokenizers_of_equally_many_tokens_are_told_apart() {
        // The published test vectors of FNV-1a: nothing, and "foobar" without what ends it here.
        assert_eq!(fingerprint([].into_iter()), 0xcbf2_9ce4_8422_2325);
        let ended = (0x8594_4171_f739_67e8_u64 ^ 0xff).wrapping_mul(0x0100_0000_01b3);
        assert_eq!(fingerprint(["foobar"].into_iter()), ended);
        let all = [["a", "bc"], ["ab", "c"], ["bc", "a"]].map(|texts| fingerprint(texts.into_iter()));
        assert!(all[0] != all[1] && all[0] != all[2] && all[1] != all[2]);
    }

    #[test]
    fn a_writer_that_lies_is_not_believed() {
        // Every word is made huge or wrong in turn, under a checksum that fits.
        let saved = filled().save();
        let body = saved.len() - CHECKSUM_BYTES;
        for word in 0..body / 4 {
            for value in [0, u32::MAX, 1 << 19] {
                let mut bytes = saved[..body].to_vec();
                bytes[word * 4..word * 4 + 4].copy_from_slice(&u32::to_le_bytes(value));
                let checksum = Sha256::digest(&bytes);
                bytes.extend_from_slice(&checksum);
                if let Ok(store) = loaded(&bytes) {
                    assert!(store.tokens() <= store.capacity && store.conversations().flatten().all(|t| *t < 1 << 23));
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn arbitrary_bytes_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..400), head in any::<bool>()) {
            let mut all = if head { filled().save()[..12].to_vec() } else { Vec::new() };
            all.extend(bytes);
            prop_assert!(loaded(&all).is_err_and(|error| error.code() == "bad_header"));
        }

        #[test]
        fn a_damaged_save_never_loads_as_something_else(
            changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..4),
            cut in proptest::option::of(any::<proptest::sample::Index>()),
            more in proptest::collection::vec(any::<u8>(), 0..9),
        ) {
            let saved = filled().save();
            let mut bytes = saved.clone();
            changes.iter().for_each(|(at, value)| bytes[at.index(saved.len())] = *value);
            bytes.truncate(cut.map_or(saved.len(), |cut| cut.index(saved.len())));
            bytes.extend(more);
            match loaded(&bytes) {
                Ok(store) => prop_assert!(bytes == saved && store.save() == saved),
                Err(error) => prop_assert!(bytes != saved && error.code() == "bad_header"),
            }
        }
    }
}
