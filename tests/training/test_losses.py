import math

import pytest
import torch

from pdadapt.training.losses import contrastive_loss, kd_loss, pair_loss

NAN = math.nan


def naive_kd(scores, points, tau, student_tau=1.0):
    """Equation 3, query by query, document by document."""
    total, queries = 0.0, 0
    for row_scores, row_points in zip(scores.tolist(), points.tolist(), strict=True):
        kept = [(s / student_tau, p / tau) for s, p in zip(row_scores, row_points, strict=True) if not math.isnan(p)]
        if len(kept) < 2:
            continue
        z_s, z_p = sum(math.exp(s) for s, _ in kept), sum(math.exp(p) for _, p in kept)
        total += sum(math.exp(p) / z_p * math.log((math.exp(p) / z_p) / (math.exp(s) / z_s)) for s, p in kept)
        queries += 1
    return total / queries


def naive_pair(scores, pairs, log_odds):
    """Two-way KL for each pair, in Python, as the released code loops."""
    values = []
    for (query, i, j), t in zip(pairs.tolist(), log_odds.tolist(), strict=True):
        if math.isnan(t):
            continue
        p = 1 / (1 + math.exp(-t))
        q = 1 / (1 + math.exp(-(scores[query][i] - scores[query][j]).item()))
        values.append(p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q)))
    return values


def naive_contrastive(scores, relevant, counted):
    """InfoNCE of each relevant document, one at a time, against what is counted and not relevant."""
    queries = []
    for row, own, others in zip(scores.tolist(), relevant.tolist(), counted.tolist(), strict=True):
        negatives = sum(
            math.exp(s) for s, is_relevant, other in zip(row, own, others, strict=True) if other and not is_relevant
        )
        values = [
            math.log((math.exp(s) + negatives) / math.exp(s))
            for s, is_relevant in zip(row, own, strict=True)
            if is_relevant
        ]
        if values:
            queries.append(sum(values) / len(values))
    return sum(queries) / len(queries)


@pytest.fixture
def batch():
    torch.manual_seed(1)
    scores = torch.randn(3, 5, dtype=torch.float64)
    points = torch.randn(3, 5, dtype=torch.float64)
    points[0, 2] = points[1, 4] = NAN
    pairs = torch.tensor([[0, 0, 1], [0, 3, 4], [1, 2, 0], [2, 1, 4], [2, 0, 3]])
    log_odds = torch.tensor([0.5, -1.2, 2.0, NAN, 0.1], dtype=torch.float64)
    return scores, points, pairs, log_odds


def test_losses_equal_values_computed_by_hand():
    # P_point = (2/3, 1/3), P = (1/2, 1/2): KL = 2/3 ln(4/3) + 1/3 ln(2/3)
    assert kd_loss(torch.zeros(1, 2), torch.tensor([[math.log(2), 0.0]])).item() == pytest.approx(
        2 / 3 * math.log(4 / 3) + 1 / 3 * math.log(2 / 3), abs=1e-6
    )
    # P_pair = 3/4, P = 1/2
    value = pair_loss(torch.zeros(1, 2), torch.tensor([[0, 0, 1]]), torch.tensor([math.log(3)]))
    assert value.item() == pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(0.5), abs=1e-6)


@pytest.mark.parametrize("tau", [0.5, 1.0, 2.0])
def test_kd_equals_the_textbook_formula(batch, tau):
    scores, points, *_ = batch
    assert kd_loss(scores, points, tau, 0.7).item() == pytest.approx(naive_kd(scores, points, tau, 0.7), abs=1e-12)


def test_pair_equals_the_loop_for_mean_and_sum(batch):
    scores, _, pairs, log_odds = batch
    values = naive_pair(scores, pairs, log_odds)
    assert pair_loss(scores, pairs, log_odds).item() == pytest.approx(sum(values) / len(values), abs=1e-12)
    assert pair_loss(scores, pairs, log_odds, "sum").item() == pytest.approx(sum(values) / 3, abs=1e-12)


def test_pair_gradient_is_that_of_the_released_bce(batch):
    scores, _, pairs, log_odds = batch
    kept = ~log_odds.isnan()
    ours, theirs = scores.clone().requires_grad_(), scores.clone().requires_grad_()
    pair_loss(ours, pairs, log_odds).backward()
    query, i, j = pairs[kept].unbind(1)
    torch.nn.functional.binary_cross_entropy_with_logits(
        theirs[query, i] - theirs[query, j], log_odds[kept].sigmoid()
    ).backward()
    torch.testing.assert_close(ours.grad, theirs.grad)


@pytest.fixture
def labeled():
    """Which of the batch's documents are relevant, and which are counted: the last query has no label."""
    relevant = torch.tensor([[1, 0, 0, 0, 0], [1, 0, 0, 1, 0], [0, 0, 0, 0, 0]]).bool()
    counted = torch.tensor([[1, 1, 1, 1, 0], [1, 1, 1, 1, 1], [1, 1, 1, 1, 1]]).bool()
    return relevant, counted


def test_contrastive_equals_the_textbook_formula(batch, labeled):
    scores = batch[0]
    assert contrastive_loss(scores, *labeled).item() == pytest.approx(naive_contrastive(scores, *labeled), abs=1e-12)
    # one relevant document: softmax cross-entropy over the documents
    one = torch.tensor([[True, False, False, False, False]])
    expected = torch.nn.functional.cross_entropy(scores[:1] / 0.5, torch.tensor([0]))
    found = contrastive_loss(scores[:1], one, torch.ones(1, 5, dtype=torch.bool), 0.5)
    torch.testing.assert_close(found, expected)


def test_against_other_queries_documents_alone_contrastive_is_the_released_loss():
    """MiuLab/PairDistill, ColBERT/colbert/modeling/colbert.py, compute_ib_loss: of a list the first document counts as
    relevant, the rest not at all; every document of every other list is a negative."""
    torch.manual_seed(2)
    queries, listed = 4, 6
    scores = 5 * torch.randn(queries, queries * listed, dtype=torch.float64)
    own = torch.arange(queries * listed) // listed == torch.arange(queries)[:, None]
    first = torch.arange(queries * listed) == listed * torch.arange(queries)[:, None]
    kept = torch.stack([scores[q][~own[q] | first[q]] for q in range(queries)])
    released = torch.nn.functional.cross_entropy(kept, listed * torch.arange(queries))
    torch.testing.assert_close(contrastive_loss(scores, first, ~own), released)
    naive = naive_contrastive(scores, first, ~own)
    assert contrastive_loss(scores, first, ~own).item() == pytest.approx(naive, abs=1e-12)


def test_contrastive_ignores_what_is_not_counted_and_queries_without_a_label(batch, labeled):
    scores = batch[0].requires_grad_()
    contrastive_loss(scores, *labeled).backward()
    assert scores.grad[0, 4] == 0 and (scores.grad[0, :4] != 0).all()
    assert (scores.grad[2] == 0).all()
    alone = scores.detach().clone().requires_grad_()  # nothing to set the relevant document against
    loss = contrastive_loss(alone, labeled[0], labeled[0])
    loss.backward()
    assert loss.item() == 0 and (alone.grad == 0).all()


def test_losses_pass_gradcheck(batch, labeled):
    scores, points, pairs, log_odds = batch
    scores.requires_grad_()
    assert torch.autograd.gradcheck(lambda s: kd_loss(s, points, 0.7, 1.3), scores)
    assert torch.autograd.gradcheck(lambda s: pair_loss(s, pairs, log_odds, "sum", 1.3), scores)
    assert torch.autograd.gradcheck(lambda s: contrastive_loss(s, *labeled, 1.3), scores)  # type: ignore[call-arg]


def test_a_student_that_agrees_has_no_loss_and_missing_labels_no_gradient(batch):
    scores, points, *_ = batch
    agreeing = points.nan_to_num(nan=9.0).requires_grad_()
    loss = kd_loss(agreeing, points)
    assert loss.item() == pytest.approx(0.0, abs=1e-12)
    scores.requires_grad_()
    kd_loss(scores, points).backward()
    assert scores.grad[0, 2] == 0 and scores.grad[1, 4] == 0
    assert (scores.grad[2] != 0).all()


def test_nothing_labeled_is_zero_and_differentiable():
    scores = torch.randn(2, 3, requires_grad=True)
    empty = torch.full((2, 3), NAN)
    none = torch.zeros(0, 3, dtype=torch.long)
    unlabeled = torch.zeros(2, 3, dtype=torch.bool)
    terms = (
        kd_loss(scores, empty),
        pair_loss(scores, none, torch.zeros(0)),
        contrastive_loss(scores, unlabeled, ~unlabeled),
    )
    sum(terms).backward()
    assert (scores.grad == 0).all()


def test_huge_scores_stay_finite():
    scores = torch.tensor([[1e4, -1e4, 0.0]], requires_grad=True)
    loss = kd_loss(scores, -scores.detach()) + pair_loss(scores, torch.tensor([[0, 0, 1]]), torch.tensor([-500.0]))
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(scores.grad).all()
