//! A boosted forest as two buffers: the nodes of all trees, and where each tree starts.
//!
//! One copy. The libraries that train forests load them as objects. Their trees are arrays of nodes, though, and the loop over them is
//! a few lines.

use cookbook::{Copies, Random, check, scaled, workers};
use invoker::bytemuck::{Pod, Zeroable};
use invoker::{BoxError, Buffer, Invoker};
use serde::{Deserialize, Serialize};

const FEATURES: u32 = 16;
const LEAF: u32 = u32::MAX;

#[derive(Clone, Copy, Pod, Zeroable)]
#[bytemuck(crate = "invoker::bytemuck")]
#[repr(C)]
struct Node {
    /// The feature to compare, or `LEAF`.
    feature: u32,
    /// The threshold, or the value of the leaf.
    value: f32,
    less: u32,
    other: u32,
}

#[derive(Serialize, Deserialize)]
struct Forest {
    nodes: Buffer<Node>,
    roots: Buffer<u32>,
}

fn predict(forest: &Forest, row: Vec<f32>) -> f32 {
    let leaf = |root: &u32| {
        let mut node = &forest.nodes[*root as usize];
        while node.feature != LEAF {
            let is_less = row[node.feature as usize] < node.value;
            node = &forest.nodes[if is_less { node.less } else { node.other } as usize];
        }
        node.value
    };
    forest.roots.iter().map(leaf).sum()
}

/// A tree as a library has it.
enum Tree {
    Leaf(f32),
    Split(u32, f32, Box<[Tree; 2]>),
}

impl Tree {
    fn random(random: &mut Random, depth: u32) -> Self {
        let value = random.below(1000) as f32 / 1000.0;
        match depth {
            0 => Self::Leaf(value),
            _ => {
                let children = [(); 2].map(|()| Self::random(random, depth - 1));
                Self::Split(random.below(FEATURES), value, Box::new(children))
            }
        }
    }

    fn predict(&self, row: &[f32]) -> f32 {
        match self {
            Self::Leaf(value) => *value,
            Self::Split(feature, value, children) => {
                children[usize::from(row[*feature as usize] >= *value)].predict(row)
            }
        }
    }

    /// Appends the nodes of the tree, and returns the index of its root.
    fn flatten(&self, nodes: &mut Vec<Node>) -> u32 {
        let node = match self {
            Self::Leaf(value) => Node {
                feature: LEAF,
                value: *value,
                less: 0,
                other: 0,
            },
            Self::Split(feature, value, children) => {
                let [less, other] = children.each_ref().map(|child| child.flatten(nodes));
                Node {
                    feature: *feature,
                    value: *value,
                    less,
                    other,
                }
            }
        };
        nodes.push(node);
        u32::try_from(nodes.len() - 1).expect("fewer nodes than 2^32")
    }
}

fn main() -> Result<(), BoxError> {
    invoker::init();
    let mut random = Random::new(4);
    let trees: Vec<Tree> = (0..scaled(400)).map(|_| Tree::random(&mut random, 12)).collect();
    let mut row = |_| {
        (0..FEATURES)
            .map(|_| random.below(1000) as f32 / 1000.0)
            .collect()
    };
    let rows: Vec<Vec<f32>> = (0..300).map(&mut row).collect();
    let expected: Vec<f32> = rows
        .iter()
        .map(|row| trees.iter().map(|tree| tree.predict(row)).sum())
        .collect();

    let mut nodes = Vec::new();
    let roots = trees.iter().map(|tree| tree.flatten(&mut nodes)).collect();
    let nodes = nodes.into();
    let invoker = Invoker::builder(predict)
        .model(Forest { nodes, roots })
        .workers(workers())
        .build()?;
    let predicted: Vec<f32> = invoker.map(rows).collect::<Result<_, _>>()?;
    assert_eq!(predicted, expected);
    check("forest", Copies::One, invoker)
}
