//! [`Account`]: counts, while a model is serialized, the heap memory that each process needs for the parts which are no buffers.
//!
//! Fields are counted by path in a tree: the elements of one sequence, and the values of one map, share a node. So the tree is as
//! large as the types of the model, and not as the model. Scalars touch it never, other values once.

use std::cell::{Cell, RefCell};

use super::memory::FieldMemory;
use super::type_name::{EntryStorage, TypeName};

/// The maximum number of nodes: a recursive type could make a tree as large as the model. Further fields count for their parents.
const MAX_NODES: usize = 1024;
/// Fields of fewer bytes are not listed.
const MIN_LISTED: u64 = 64 << 10;
/// The most fields that are listed.
const MAX_LISTED: usize = 64;

/// The counts of a model that is being serialized, and why that failed.
#[derive(Debug, Default)]
pub(super) struct Account {
    nodes: RefCell<Vec<Node>>,
    /// Bytes of the value that was serialized last, without what it points to: an estimate for values behind references.
    size: Cell<usize>,
    failure: RefCell<Option<Failure>>,
}

/// A node of the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NodeId(usize);

impl NodeId {
    pub(super) const ROOT: Self = Self(0);
}

/// Where a value is in its parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Root,
    Field(&'static str),
    /// An element of a tuple.
    Index(usize),
    /// Any element of a sequence, or value of a map.
    Element,
    /// Any key of a map.
    Key,
}

/// The type of a value, and its size without what it points to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Type {
    pub(super) name: &'static str,
    pub(super) size: usize,
}

impl Type {
    pub(super) fn of<T: ?Sized>(value: &T) -> Self {
        Self {
            name: std::any::type_name::<T>(),
            size: size_of_val(value),
        }
    }

    /// Returns whether the value is a reference. The compiler knows that.
    #[inline]
    pub(super) fn is_plain_reference(self) -> bool {
        self.name.as_bytes().first() == Some(&b'&')
    }

    /// Returns whether the value is only a reference to one that is counted elsewhere.
    fn is_reference(self) -> bool {
        self.is_plain_reference() || self.name.contains("__SerializeWith")
    }
}

#[derive(Debug)]
struct Node {
    parent: NodeId,
    place: Place,
    type_name: &'static str,
    /// Whether a map or set of this type is a hash table or a tree.
    storage: EntryStorage,
    children: Vec<NodeId>,
    /// Bytes on the heap, without those of its children.
    bytes: u64,
}

/// Why a model can't be serialized.
#[derive(Debug, Default)]
pub(super) struct Failure {
    pub(super) path: String,
    pub(super) type_name: String,
    /// The reason and the remedy, if they are known.
    pub(super) reason: Option<String>,
}

/// The members of a sequence, map or struct.
#[derive(Debug, Clone, Copy)]
pub(super) enum Members {
    /// Elements in one allocation, or in the nodes of a set.
    Sequence,
    /// Keys and values.
    Map,
    /// Parts of the value, which lie in it, unless it is a pointer.
    Inline,
}

impl Account {
    /// Counts the model itself.
    pub(super) fn start(&self, model: Type) {
        let root = self.node(NodeId::ROOT, Place::Root, model.name);
        self.add(root, model.size as u64);
    }

    /// Returns the node of a member of `parent`.
    pub(super) fn node(&self, parent: NodeId, place: Place, type_name: &'static str) -> NodeId {
        let mut nodes = self.nodes.borrow_mut();
        let new = NodeId(nodes.len());
        if place == Place::Root {
            if nodes.is_empty() {
                nodes.push(Node::new(NodeId::ROOT, place, type_name));
            }
            return NodeId::ROOT;
        }
        let found = nodes.get(parent.0).and_then(|node| {
            let mut children = node.children.iter().copied();
            children.find(|child| nodes[child.0].place.is(place))
        });
        if let Some(found) = found {
            return found;
        }
        if new.0 >= MAX_NODES {
            return parent;
        }
        nodes.push(Node::new(parent, place, type_name));
        nodes[parent.0].children.push(new);
        new
    }

    #[inline]
    pub(super) fn set_size(&self, bytes: usize) {
        self.size.set(bytes);
    }

    #[inline]
    pub(super) fn size(&self) -> usize {
        self.size.get()
    }

    /// Counts an allocation of `len` bytes.
    pub(super) fn add_allocation(&self, node: NodeId, len: usize) {
        self.add(node, allocation(len as u64));
    }

    /// Counts `count` members of a value, of `bytes` bytes together.
    pub(super) fn add_members(&self, node: NodeId, of: Type, members: Members, count: usize, bytes: usize) {
        let storage = self
            .nodes
            .borrow()
            .get(node.0)
            .map_or(EntryStorage::None, |node| node.storage);
        let (count, len) = (count as u64, bytes as u64);
        let bytes = match (members, storage) {
            (Members::Inline, _) if bytes <= of.size || of.is_reference() => 0,
            (Members::Sequence, EntryStorage::None) | (Members::Inline, _) => allocation(len),
            (_, EntryStorage::Hash | EntryStorage::None) => hash_table(count, len),
            (_, EntryStorage::Tree) => 2 * len,
        };
        self.add(node, bytes);
    }

    fn add(&self, node: NodeId, bytes: u64) {
        if let Some(node) = self.nodes.borrow_mut().get_mut(node.0) {
            node.bytes = node.bytes.saturating_add(bytes);
        }
    }

    /// Records why a value can't be serialized. The first record stays: it is that of the innermost value.
    pub(super) fn fail(&self, path: &dyn std::fmt::Display, type_name: &str, reason: Option<String>) {
        let mut failure = self.failure.borrow_mut();
        if failure.is_none() {
            *failure = Some(Failure {
                path: path.to_string(),
                type_name: TypeName::shorten(type_name),
                reason,
            });
        }
    }

    pub(super) fn take_failure(&self) -> Option<Failure> {
        self.failure.take()
    }

    /// Returns the bytes of all fields together, and the largest fields, from the largest on.
    pub(super) fn totals(&self) -> (u64, Vec<FieldMemory>) {
        let nodes = self.nodes.borrow();
        let totals: Vec<Cell<u64>> = nodes.iter().map(|node| Cell::new(node.bytes)).collect();
        // A parent comes before its children.
        for (index, node) in nodes.iter().enumerate().skip(1).rev() {
            let parent = &totals[node.parent.0];
            parent.set(parent.get().saturating_add(totals[index].get()));
        }
        let mut fields = Vec::new();
        let mut rest: Vec<usize> = if nodes.is_empty() { Vec::new() } else { vec![0] };
        while let Some(index) = rest.pop() {
            let (node, total) = (&nodes[index], totals[index].get());
            if total < MIN_LISTED {
                continue;
            }
            let name = TypeName::parse(node.type_name);
            let whole = name.replacement();
            let bytes = match &whole {
                Some(_) => total,
                None => {
                    rest.extend(node.children.iter().map(|child| child.0));
                    node.bytes
                }
            };
            if bytes >= MIN_LISTED {
                fields.push(FieldMemory {
                    path: path(&nodes, index),
                    type_name: TypeName::shorten(node.type_name),
                    bytes,
                    suggestion: whole.or_else(|| name.advice()),
                });
            }
        }
        fields.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.path.cmp(&b.path)));
        fields.truncate(MAX_LISTED);
        (totals.first().map_or(0, Cell::get), fields)
    }
}

impl Node {
    fn new(parent: NodeId, place: Place, type_name: &'static str) -> Self {
        Self {
            parent,
            place,
            type_name,
            storage: TypeName::parse(type_name).storage(),
            children: Vec::new(),
            bytes: 0,
        }
    }
}

impl Place {
    /// Like `==`, and faster for the same text at the same address.
    fn is(self, other: Self) -> bool {
        match (self, other) {
            (Self::Field(a), Self::Field(b)) => std::ptr::eq(a, b) || a == b,
            _ => self == other,
        }
    }
}

/// Returns the path of a node, such as `layers.*.names`.
fn path(nodes: &[Node], index: usize) -> String {
    let mut steps = Vec::new();
    let mut at = index;
    while at != NodeId::ROOT.0 {
        let node = &nodes[at];
        steps.push(match node.place {
            Place::Root => String::new(),
            Place::Field(name) => name.to_owned(),
            Place::Index(index) => index.to_string(),
            Place::Element => "*".to_owned(),
            Place::Key => "key".to_owned(),
        });
        at = node.parent.0;
    }
    steps.reverse();
    steps.join(".")
}

/// Returns what an allocation of `len` bytes takes from the heap: with the allocator's own 8 bytes, in steps of 16, as in glibc.
fn allocation(len: u64) -> u64 {
    match len {
        0 => 0,
        len => (len + 8).next_multiple_of(16).max(32),
    }
}

/// Returns what the standard library's hash table of `count` entries of `len` bytes together takes: a power of two of buckets,
/// of which seven eighths at most are used, and a byte for each.
fn hash_table(count: u64, len: u64) -> u64 {
    if count == 0 {
        return 0;
    }
    let buckets = (count * 8).div_ceil(7).next_power_of_two();
    allocation(buckets * len.div_ceil(count) + buckets + 16)
}
