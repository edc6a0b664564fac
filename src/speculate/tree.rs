//! The token tree: what was drafted in a round. A chain is a tree.

use crate::plan::{MAX_COLUMNS, Params};

/// A node; 0 is the root, the last committed token. Node `i` is column `i` of the verify pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct NodeId(pub u16);

impl NodeId {
    /// The last committed token.
    pub const ROOT: NodeId = NodeId(0);
}

/// How a candidate was made; it decides which acceptance rules are exact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proposal {
    /// A point mass: n-gram, suffix, greedy or shared-noise drafts.
    Deterministic,
}

/// A candidate below a node, in draft order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    /// The node that carries it.
    pub child: NodeId,
    /// How it was made.
    pub proposal: Proposal,
    /// Name of the drafter that made it.
    pub source: &'static str,
}

/// A token with its place in the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// The token; of a node that a device drafts it is known after the round.
    pub token: Option<u32>,
    /// The node before it; the root's is itself.
    pub parent: NodeId,
    /// Distance from the root.
    pub depth: usize,
    /// Candidates below it.
    pub slots: Vec<Slot>,
}

/// Parents come before their children, at most [`MAX_COLUMNS`] nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenTree {
    nodes: Vec<Node>,
}

impl TokenTree {
    /// Only a root.
    pub fn new(root: u32) -> TokenTree {
        TokenTree { nodes: vec![Node { token: Some(root), parent: NodeId::ROOT, depth: 0, slots: Vec::new() }] }
    }

    /// Adds a candidate below `parent`; `None` where the tree is full.
    pub fn add(
        &mut self,
        parent: NodeId,
        token: Option<u32>,
        proposal: Proposal,
        source: &'static str,
    ) -> Option<NodeId> {
        if self.nodes.len() == MAX_COLUMNS {
            return None;
        }
        let child = NodeId(self.nodes.len() as u16);
        let depth = self.nodes[parent.0 as usize].depth + 1;
        self.nodes.push(Node { token, parent, depth, slots: Vec::new() });
        self.nodes[parent.0 as usize].slots.push(Slot { child, proposal, source });
        Some(child)
    }

    /// A chain of known tokens below the root.
    pub fn chain(root: u32, tokens: &[u32], source: &'static str) -> TokenTree {
        let mut tree = TokenTree::new(root);
        let mut at = NodeId::ROOT;
        for &token in tokens {
            match tree.add(at, Some(token), Proposal::Deterministic, source) {
                Some(child) => at = child,
                None => break,
            }
        }
        tree
    }

    /// Fills in a token that a device drafted.
    pub fn set_token(&mut self, node: NodeId, token: u32) {
        self.nodes[node.0 as usize].token = Some(token);
    }

    /// All nodes, the root first.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// One node.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0 as usize]
    }

    /// Nodes below the root.
    pub fn drafted(&self) -> usize {
        self.nodes.len() - 1
    }

    /// The first slot of `parent` whose node carries `token`.
    pub fn child(&self, parent: NodeId, token: u32) -> Option<Slot> {
        self.node(parent).slots.iter().copied().find(|slot| self.node(slot.child).token == Some(token))
    }

    /// Params of the pass that verifies this tree at `base`.
    pub fn params(&self, base: usize, token_at: usize) -> Params {
        let mut params = Params::chain(self.nodes.len(), base, token_at);
        for (index, node) in self.nodes.iter().enumerate().skip(1) {
            params.ancestors[index] = params.ancestors[node.parent.0 as usize] | 1 << index;
        }
        params
    }
}
