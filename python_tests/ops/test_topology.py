import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sem.ops import Topology


def is_connected(topology):
    reached, frontier = {0}, [0]
    neighbours = [[] for _ in range(topology.nodes)]
    for i, j in topology.edges.tolist():
        neighbours[i].append(j)
        neighbours[j].append(i)
    while frontier:
        new = {n for node in frontier for n in neighbours[node]} - reached
        reached |= new
        frontier = list(new)
    return len(reached) == topology.nodes


def long_range_edges(topology, ring_reach):
    i, j = topology.edges.unbind(1)
    return int((torch.minimum(j - i, topology.nodes - (j - i)) > ring_reach).sum())


@pytest.mark.parametrize(
    "edges", [[(0, 1), (2, 1)], [[0, 1], [2, 1]], torch.tensor([[0, 1], [2, 1]], dtype=torch.int16)]
)
def test_edges_keep_their_order_and_point_up(edges):
    topology = Topology(3, edges)
    assert topology.edges.tolist() == [[0, 1], [1, 2]]
    assert topology.degree.tolist() == [1, 2, 1]
    assert topology.num_edges == 2
    assert repr(topology) == "Topology(nodes=3, num_edges=2)"


def test_a_graph_may_have_no_edges():
    topology = Topology(4, [])
    assert topology.num_edges == 0
    assert topology.degree.tolist() == [0, 0, 0, 0]


def test_packed_form_by_hand():
    packed = Topology(3, [(2, 1), (0, 1)]).packed(torch.device("cpu"))
    ends, row_start = [1, 0, 2, 1], [0, 1, 3, 4]
    neighbours, incident_edges = [1, 0, 2, 1], [1, 1, 0, 0]
    assert packed.dtype == torch.int32
    assert packed.tolist() == ends + row_start + neighbours + incident_edges


@given(
    nodes=st.integers(2, 60),
    degree=st.integers(1, 70),
    share=st.floats(0, 1),
    seed=st.integers(0, 5),
)
def test_small_worlds_are_simple_and_connected_within_budget(nodes, degree, share, seed):
    topology = Topology.small_world(nodes, degree, share, seed)
    i, j = topology.edges.unbind(1)
    assert (i < j).all()
    assert len(set(map(tuple, topology.edges.tolist()))) == topology.num_edges
    assert topology.num_edges == min(max(nodes * degree // 2, nodes - 1), nodes * (nodes - 1) // 2)
    assert is_connected(topology)


@pytest.mark.parametrize("degree", [4, 8, 16, 32])
def test_even_sparsity_leaves_a_quarter_for_long_range_edges(degree):
    topology = Topology.small_world(256, degree)
    ring_reach = -(-topology.num_edges * 3 // 4 // 256)
    found = long_range_edges(topology, ring_reach)
    assert 0.2 * topology.num_edges <= found <= 0.25 * topology.num_edges


def test_no_share_is_a_ring():
    assert long_range_edges(Topology.small_world(64, 6, long_range_share=0.0), ring_reach=3) == 0


def test_the_seed_decides_the_long_range_edges():
    graphs = [Topology.small_world(64, 8, seed=seed).edges for seed in (3, 3, 4)]
    assert torch.equal(graphs[0], graphs[1])
    assert not torch.equal(graphs[0], graphs[2])


def test_one_node():
    assert Topology.small_world(1, 4).num_edges == 0


@pytest.mark.parametrize(
    ("nodes", "edges", "error", "message"),
    [
        (0, [], ValueError, "nodes: expected at least 1 node.* got 0"),
        (-3, [], ValueError, "nodes: expected at least 1 node.* got -3"),
        (2**31, [], ValueError, "nodes: expected .* got 2147483648"),
        (2.0, [], TypeError, "nodes: expected an int, got float"),
        (True, [], TypeError, "nodes: expected an int, got bool"),
        (3, [(0, 3)], ValueError, r"edges: expected indices in \[0, 3\), got \(0, 3\)"),
        (3, [(0, 1), (-1, 2)], ValueError, r"edges: expected indices in \[0, 3\), got \(-1, 2\)"),
        (3, [(0, 1), (2, 2)], ValueError, r"edges: expected no self-loops, got \(2, 2\)"),
        (3, [(0, 1), (0, 1)], ValueError, r"edges: expected each undirected edge once, got \(0, 1\) more"),
        (3, [(1, 2), (2, 1)], ValueError, r"edges: expected each undirected edge once, got \(1, 2\) more"),
        (3, [(0.0, 1.0)], TypeError, "edges: expected integers, got torch.float32"),
        (3, torch.ones(1, 2, dtype=torch.bool), TypeError, "edges: expected integers, got torch.bool"),
        (3, [0, 1], ValueError, r"edges: expected shape \[E, 2\], got \[2\]"),
        (3, [(0, 1, 2)], ValueError, r"edges: expected shape \[E, 2\], got \[1, 3\]"),
        (3, torch.ones(2, 0, dtype=torch.int64), ValueError, r"edges: expected shape \[E, 2\], got \[2, 0\]"),
        (3, [(0, 1), (2,)], ValueError, r"edges: expected pairs of integers, shape \[E, 2\]"),
        (3, "ab", TypeError, "edges: expected a tensor or a sequence of pairs of integers, got str"),
        (3, None, TypeError, "edges: expected .* got NoneType"),
        (3, [("a", "b")], (TypeError, ValueError), "edges: expected pairs of integers"),
    ],
)
def test_bad_graphs_are_refused_in_words(nodes, edges, error, message):
    with pytest.raises(error, match=message):
        Topology(nodes, edges)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"nodes": 0, "degree": 2}, ValueError, "nodes: expected at least 1 node.* got 0"),
        ({"nodes": 8.0, "degree": 2}, TypeError, "nodes: expected an int, got float"),
        ({"nodes": 8, "degree": 0}, ValueError, "degree: expected at least 1, got 0"),
        ({"nodes": 8, "degree": 2.5}, TypeError, "degree: expected an int, got float"),
        ({"nodes": 8, "degree": 2, "long_range_share": 1.5}, ValueError, r"long_range_share: .* \[0, 1\], got 1.5"),
        ({"nodes": 8, "degree": 2, "long_range_share": "x"}, TypeError, "long_range_share: .* got str"),
    ],
)
def test_bad_small_worlds_are_refused_in_words(arguments, error, message):
    with pytest.raises(error, match=message):
        Topology.small_world(**arguments)
