//! The token tree: what was drafted in a round. A chain is a tree.

use super::drafters::DrafterId;
use crate::plan::{MAX_COLUMNS, MAX_NODES, Params};
use std::rc::Rc;

/// Nodes a tree may have while it is drafted; it is cut to [`MAX_NODES`] before it is verified.
pub const MAX_DRAFT_NODES: usize = 256;

/// A node; 0 is the root, the last committed token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub u16);

impl NodeId {
    /// The last committed token.
    pub const ROOT: NodeId = NodeId(0);

    /// As an index.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// A distribution over the vocabulary.
pub type Distribution = Rc<[f64]>;

/// How a candidate was made; it decides which acceptance rules are exact (methods.md, "exactness contract").
#[derive(Debug, Clone, PartialEq)]
pub enum Proposal {
    /// A point mass: n-gram, suffix, greedy or shared-noise drafts, beams.
    Deterministic,
    /// Drawn from `q`, independently of its siblings.
    Sampled(Distribution),
    /// Drawn from `q` without replacement among the siblings that carry the same `q`.
    SampledWor(Distribution),
}

/// A candidate below a node, in draft order. Two slots may share a node: keys and values are then not computed twice.
#[derive(Debug, Clone, PartialEq)]
pub struct Slot {
    /// The node that carries it.
    pub child: NodeId,
    /// How it was made.
    pub proposal: Proposal,
    /// Who made it.
    pub source: DrafterId,
}

/// What a drafter says of a candidate. Probabilities are the draft's own.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DraftStats {
    /// ln q(token | path); 0 for a certain copy.
    pub logq: f32,
    /// The largest probability of the row that the candidate was taken from.
    pub top1: f32,
    /// The largest less the second largest probability.
    pub margin: f32,
    /// Entropy of the row in nats.
    pub entropy: f32,
    /// Tokens of context that were matched, 0 where the drafter does not match.
    pub match_len: u16,
}

impl DraftStats {
    /// A candidate of a known probability, and no more known than that.
    pub fn of_probability(q: f32) -> DraftStats {
        let q = q.clamp(1e-6, 1.0);
        // What is left goes to one other token: the least entropy that q allows.
        let rest = 1.0 - q;
        let entropy = -q * q.ln() - if rest > 0.0 { rest * rest.ln() } else { 0.0 };
        DraftStats { logq: q.ln(), top1: q.max(rest), margin: (2.0 * q - 1.0).abs(), entropy, match_len: 0 }
    }

    /// The same with the length of a match.
    pub fn matched(self, tokens: usize) -> DraftStats {
        DraftStats { match_len: tokens.min(usize::from(u16::MAX)) as u16, ..self }
    }
}

/// What a drafter offers below a leaf.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// The token.
    pub token: u32,
    /// How it was made.
    pub proposal: Proposal,
    /// What the drafter knows of it.
    pub stats: DraftStats,
    /// Where the drafter stands after it: handed back when this node is expanded, 0 where it needs no such thing.
    pub cursor: u32,
}

impl Candidate {
    /// A deterministic candidate.
    pub fn new(token: u32, stats: DraftStats) -> Candidate {
        Candidate { token, proposal: Proposal::Deterministic, stats, cursor: 0 }
    }

    /// The same with a cursor.
    pub fn at(self, cursor: u32) -> Candidate {
        Candidate { cursor, ..self }
    }
}

/// A token with its place in the tree.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// The token; of a node that a device drafts inside the round it is known after it.
    pub token: Option<u32>,
    /// The node before it; the root's is itself.
    pub parent: NodeId,
    /// Distance from the root.
    pub depth: usize,
    /// Candidates below it, in draft order.
    pub slots: Vec<Slot>,
    /// Who drafted it first; of the root nobody.
    pub source: Option<DrafterId>,
    /// What its drafter said of it.
    pub stats: DraftStats,
    /// Its drafter's cursor.
    pub cursor: u32,
    /// Cursors of other drafters that offered the same token, so that each goes on from its own place.
    pub also: Vec<(DrafterId, u32)>,
    /// P(accepted | parent accepted), by the length policy's estimator.
    pub a_hat: f32,
    /// Product of `a_hat` from the root.
    pub survival: f32,
    /// It was asked for children already.
    pub expanded: bool,
    /// Its number while the tree was drafted; a drafter's own cache knows it by that.
    pub drafted_as: NodeId,
}

impl Node {
    /// Where a drafter stood after this node; `None` where it did not offer it, or left no cursor.
    pub fn cursor_of(&self, drafter: DrafterId) -> Option<u32> {
        let own = (self.source == Some(drafter)).then_some(self.cursor);
        own.or_else(|| self.also.iter().find(|also| also.0 == drafter).map(|also| also.1)).filter(|&cursor| cursor > 0)
    }
}

/// Parents come before their children.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenTree {
    nodes: Vec<Node>,
}

impl TokenTree {
    /// Only a root.
    pub fn new(root: u32) -> TokenTree {
        TokenTree {
            nodes: vec![Node {
                token: Some(root),
                parent: NodeId::ROOT,
                depth: 0,
                slots: Vec::new(),
                source: None,
                stats: DraftStats::of_probability(1.0),
                cursor: 0,
                also: Vec::new(),
                a_hat: 1.0,
                survival: 1.0,
                expanded: false,
                drafted_as: NodeId::ROOT,
            }],
        }
    }

    /// Adds a candidate below `parent`. A token that stands there already gets a second slot on the same node if it was
    /// sampled (its draw counts), and nothing more than its drafter's cursor if it is deterministic. `None` where the tree is full or there was
    /// nothing to add; else the node, and whether it is new.
    pub fn attach(&mut self, parent: NodeId, candidate: &Candidate, source: DrafterId) -> Option<(NodeId, bool)> {
        let slot = |child| Slot { child, proposal: candidate.proposal.clone(), source };
        if let Some(known) = self.child(parent, candidate.token).map(|slot| slot.child) {
            if candidate.proposal == Proposal::Deterministic {
                let node = &mut self.nodes[known.index()];
                if candidate.cursor > 0 && node.cursor_of(source).is_none() {
                    node.also.push((source, candidate.cursor));
                }
                return None;
            }
            let slot = slot(known);
            self.nodes[parent.index()].slots.push(slot);
            return Some((known, false));
        }
        let child = self.push(parent, Some(candidate.token), slot)?;
        let node = &mut self.nodes[child.index()];
        (node.stats, node.cursor) = (candidate.stats, candidate.cursor);
        Some((child, true))
    }

    /// Adds a node whose token a device will fill in; deterministic.
    pub fn attach_unknown(&mut self, parent: NodeId, source: DrafterId) -> Option<NodeId> {
        self.push(parent, None, |child| Slot { child, proposal: Proposal::Deterministic, source })
    }

    fn push(&mut self, parent: NodeId, token: Option<u32>, slot: impl FnOnce(NodeId) -> Slot) -> Option<NodeId> {
        if self.nodes.len() == MAX_DRAFT_NODES {
            return None;
        }
        let child = NodeId(self.nodes.len() as u16);
        let slot = slot(child);
        let above = &mut self.nodes[parent.index()];
        let (depth, survival) = (above.depth + 1, above.survival);
        let source = Some(slot.source);
        above.slots.push(slot);
        self.nodes.push(Node {
            token,
            parent,
            depth,
            slots: Vec::new(),
            source,
            stats: DraftStats::of_probability(1.0),
            cursor: 0,
            also: Vec::new(),
            a_hat: 1.0,
            survival,
            expanded: false,
            drafted_as: child,
        });
        Some(child)
    }

    /// A chain of known tokens below the root.
    pub fn chain(root: u32, tokens: &[u32], source: DrafterId) -> TokenTree {
        let mut tree = TokenTree::new(root);
        let mut at = NodeId::ROOT;
        for &token in tokens {
            match tree.attach(at, &Candidate::new(token, DraftStats::of_probability(1.0)), source) {
                Some((child, _)) => at = child,
                None => break,
            }
        }
        tree
    }

    /// Fills in a token that a device drafted.
    pub fn set_token(&mut self, node: NodeId, token: u32) {
        self.nodes[node.index()].token = Some(token);
    }

    /// Notes what an estimator thinks of a node.
    pub fn set_estimate(&mut self, node: NodeId, a_hat: f32) {
        let a_hat = a_hat.clamp(0.0, 1.0);
        let above = self.nodes[self.node(node).parent.index()].survival;
        let node = &mut self.nodes[node.index()];
        (node.a_hat, node.survival) = (a_hat, above * a_hat);
    }

    /// Notes that a node was asked for children.
    pub fn set_expanded(&mut self, node: NodeId) {
        self.nodes[node.index()].expanded = true;
    }

    /// All nodes, the root first.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Ids of all nodes, the root first.
    pub fn ids(&self) -> impl DoubleEndedIterator<Item = NodeId> + use<> {
        (0..self.nodes.len() as u16).map(NodeId)
    }

    /// One node.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.index()]
    }

    /// Nodes below the root.
    pub fn drafted(&self) -> usize {
        self.nodes.len() - 1
    }

    /// Deepest depth.
    pub fn depth(&self) -> usize {
        self.nodes.iter().map(|node| node.depth).max().unwrap_or(0)
    }

    /// Whether every node but the last has one child: a single path.
    pub fn is_chain(&self) -> bool {
        self.nodes.iter().enumerate().skip(1).all(|(index, node)| node.parent.index() + 1 == index)
    }

    /// Whether no slot was sampled.
    pub fn is_deterministic(&self) -> bool {
        self.nodes.iter().flat_map(|node| &node.slots).all(|slot| slot.proposal == Proposal::Deterministic)
    }

    /// The first slot of `parent` whose node carries `token`.
    pub fn child(&self, parent: NodeId, token: u32) -> Option<&Slot> {
        self.node(parent).slots.iter().find(|slot| self.node(slot.child).token == Some(token))
    }

    /// Nodes from below the root down to `node`; empty for the root.
    pub fn path(&self, node: NodeId) -> Vec<NodeId> {
        let mut path = Vec::with_capacity(self.node(node).depth);
        let mut at = node;
        while at != NodeId::ROOT {
            path.push(at);
            at = self.node(at).parent;
        }
        path.reverse();
        path
    }

    /// Known tokens from below the root down to `node`.
    pub fn path_tokens(&self, node: NodeId) -> Vec<u32> {
        self.path(node).into_iter().filter_map(|node| self.node(node).token).collect()
    }

    /// Ids of the nodes below the root, the likeliest to survive first; of equals the earlier. A node never comes before its
    /// parent, since no survival exceeds that of the parent.
    pub fn by_survival(&self) -> Vec<NodeId> {
        let mut order: Vec<NodeId> = self.ids().skip(1).collect();
        order.sort_by(|a, b| self.node(*b).survival.total_cmp(&self.node(*a).survival).then(a.cmp(b)));
        order
    }

    /// The tree of the `kept` nodes, which must include the parents of each; slots keep their order.
    pub fn keep(&self, kept: &[NodeId]) -> TokenTree {
        let mut numbers = vec![None; self.nodes.len()];
        numbers[0] = Some(NodeId::ROOT);
        let mut next = 1;
        for id in self.ids().skip(1) {
            if kept.contains(&id) && numbers[self.node(id).parent.index()].is_some() {
                numbers[id.index()] = Some(NodeId(next));
                next += 1;
            }
        }
        let nodes = self.ids().filter(|id| numbers[id.index()].is_some()).map(|id| {
            let mut node = self.node(id).clone();
            node.parent = numbers[node.parent.index()].unwrap_or(NodeId::ROOT);
            node.slots.retain(|slot| numbers[slot.child.index()].is_some());
            for slot in &mut node.slots {
                slot.child = numbers[slot.child.index()].unwrap_or(NodeId::ROOT);
            }
            node
        });
        TokenTree { nodes: nodes.collect() }
    }

    /// Mask over nodes of a node's ancestors, its own bit set; of trees that can be verified only.
    pub fn ancestors(&self, node: NodeId) -> u32 {
        self.path(node).into_iter().fold(1, |mask, node| mask | 1 << node.0)
    }

    /// Params of the passes that verify this tree at `base`: [`MAX_COLUMNS`] nodes each.
    pub fn params(&self, base: usize, token_at: usize) -> Vec<Params> {
        assert!(
            self.nodes.len() <= MAX_NODES,
            "{} nodes, a tree that is verified has at most {MAX_NODES}",
            self.nodes.len()
        );
        let ids: Vec<NodeId> = self.ids().collect();
        ids.chunks(MAX_COLUMNS).map(|nodes| self.params_of(nodes, base, token_at)).collect()
    }

    /// Params of a pass over some nodes of this tree, at most [`MAX_COLUMNS`], numbered as they were drafted.
    pub fn params_of(&self, nodes: &[NodeId], base: usize, token_at: usize) -> Params {
        let mut params = Params::chain(nodes.len(), base, token_at);
        for (column, &node) in nodes.iter().enumerate() {
            params.nodes[column] = u32::from(node.0);
            params.ancestors[column] = self.ancestors(node);
        }
        params
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANY: DrafterId = DrafterId(0);

    fn candidate(token: u32) -> Candidate {
        Candidate::new(token, DraftStats::of_probability(0.5))
    }

    #[test]
    fn a_sampled_duplicate_gets_a_slot_and_no_node() {
        let mut tree = TokenTree::new(1);
        let (first, new) = tree.attach(NodeId::ROOT, &candidate(5), ANY).expect("room");
        assert!(new);
        assert_eq!(tree.attach(NodeId::ROOT, &candidate(5), ANY), None, "a deterministic duplicate adds nothing");
        tree.attach(NodeId::ROOT, &candidate(5).at(9), DrafterId(3));
        let node = tree.node(first);
        assert_eq!((node.cursor_of(ANY), node.cursor_of(DrafterId(3))), (None, Some(9)), "who agrees keeps its place");
        let sampled = Candidate { proposal: Proposal::Sampled(Rc::from([0.5, 0.5])), ..candidate(5) };
        assert_eq!(tree.attach(NodeId::ROOT, &sampled, ANY), Some((first, false)));
        assert_eq!((tree.drafted(), tree.node(NodeId::ROOT).slots.len()), (1, 2));
    }

    #[test]
    fn keeping_renumbers_and_drops_the_children_of_the_dropped() {
        let mut tree = TokenTree::new(1);
        let mut add = |parent, token| tree.attach(parent, &candidate(token), ANY).expect("room").0;
        let a = add(NodeId::ROOT, 5);
        let b = add(NodeId::ROOT, 6);
        let c = add(b, 7);
        add(a, 8);
        assert_eq!(tree.params(10, 0)[0].ancestors[..5], [0b1, 0b11, 0b101, 0b1101, 0b10011]);
        let kept = tree.keep(&[b, c]);
        assert_eq!(kept.nodes().iter().map(|node| node.token).collect::<Vec<_>>(), [Some(1), Some(6), Some(7)]);
        assert_eq!((kept.node(NodeId(2)).parent, kept.node(NodeId(2)).drafted_as), (NodeId(1), c));
        assert_eq!(kept.path_tokens(NodeId(2)), [6, 7]);
        assert!(kept.is_chain() && !tree.is_chain());
        assert_eq!(tree.keep(&[c]).drafted(), 0, "without its parent a node goes too");
    }
}
