"""The tests of what training watches have teeth, as `tests/decisions/test_mutants.py` has them for decisions."""

import shutil
from pathlib import Path

import pytest

from tests.decisions.test_mutants import ROOT, copied, run_tests
from tests.mutants import Mutant, mutated

TRAINING = Path("natix_lib", "training")
WATCH, FIT, TUNING, GRID, LOSS, MIXING, EVENTS = (
    f"tests/training/test_{name}.py" for name in ("watch", "fit", "tuning", "grid", "loss", "mixing", "events")
)
PLUGINS = ("tests.tiny_backbone",)
HELPERS = ("cloud_storage", "front", "loopback", "tiny_backbone")  # modules of tests that these tests import
POOLED = (
    "tests/training/test_grid.py::test_heads_of_several_poolings_are_each_what_they_become_on_their_own_columns_alone"
)
BANK, PRECISION = "tests/training/test_bank.py", "tests/training/test_precision.py"
VIEWS, AUGMENT = "tests/training/test_views.py", "tests/training/test_augment.py"

MUTANTS = {
    "a macro-F1 over classes that are not there": Mutant(
        "watch.figures",
        "true + answered > 0",
        "true + answered >= 0",
        f"{WATCH}::test_one_answer_for_all_has_no_correlation_and_a_macro_f1_of_the_classes_that_are_there",
    ),
    "hits that are counted by the answers of all": Mutant(
        "watch.figures",
        "truth[hit]",
        "answer",
        f"{WATCH}::test_the_figures_are_those_of_scikit_learn[0-5]",
    ),
    "a loss that is watched upside down": Mutant(
        "watch.ranked",
        "mode == 'max'",
        "mode != ''",
        f"{WATCH}::test_the_monitor_chooses_the_epoch_whose_weights_are_kept[val_select/loss-4]",
    ),
    "a tie that counts as progress": Mutant(
        "watch.compared",
        "rank[0] > before[0]",
        "rank > before",
        f"{WATCH}::test_patience_counts_the_monitored_figure_and_no_other[val_select/mcc]",
    ),
    "a view that is drawn for the place of an image in its batch": Mutant(
        "views.Views._put",
        "self.images.ids[index]",
        "self.images.ids[0]",
        f"{VIEWS}::test_views_of_two_images_are_drawn_apart",
    ),
    "numbers of the first views for all that are done at once": Mutant(
        "augment.finished",
        "numbers[rows]",
        "numbers[: len(planes)]",
        f"{AUGMENT}::test_a_batch_that_is_done_in_parts_is_changed_by_its_own_numbers",
    ),
    "a compression of another quality": Mutant(
        "jpeg.tables",
        "200 - 2 * quality",
        "200 - quality",
        f"{AUGMENT}::test_compression_is_that_of_libjpeg[64-75]",
    ),
    "a contrast around half a grey": Mutant(
        "augment._changed",
        "mixed(shown, middle, table[:, CONTRAST])",
        "mixed(shown, 0 * middle + 0.5, table[:, CONTRAST])",
        f"{AUGMENT}::test_light_is_changed_as_pillow_changes_it_but_for_its_rounding[2-Contrast-0.6]",
    ),
    "an overflow that is named by the wrong step": Mutant(
        "fit._require_finite",
        "step - len(values) + first + 1",
        "step - len(values) + first",
        f"{FIT}::test_a_long_epoch_is_stopped_soon_after_the_step_that_overflows",
    ),
    "rates that fall by one block too few": Mutant(
        "tuning.adamw",
        "layer_decay ** (depth + 1 - level)",
        "layer_decay ** (depth - level)",
        f"{TUNING}::test_rates_fall_from_the_head_to_the_embeddings",
    ),
    "biases that decay as matrices do": Mutant(
        "tuning._is_matrix",
        "parameter.ndim > 1",
        "parameter.ndim > 0",
        f"{TUNING}::test_matrices_alone_decay_where_so_asked",
    ),
    "a rate that does not warm up": Mutant(
        "tuning.rate",
        "(step + 1) / rising",
        "1.0",
        f"{TUNING}::test_the_schedule_is_that_of_torch[0.25]",
    ),
    "LoRA that is thrown away": Mutant(
        "tuning.end_tuning",
        "merge_lora(backbone)",
        "[backbone.set_submodule(name.rpartition('.')[0], module) for name, module in [*backbone.named_modules()] "
        "if name.endswith('.base_layer')]",
        f"{TUNING}::test_a_backbone_that_lora_has_tuned_computes_the_same_when_it_is_one_model_again",
    ),
    "labels that are not smoothed": Mutant(
        "loss.BatchLoss.of_part",
        "cross_entropy(logits, targets, self.weights, label_smoothing=self.smoothing)",
        "cross_entropy(logits, targets, self.weights)",
        f"{LOSS}::test_the_parts_of_a_batch_sum_to_its_loss_and_gradient[numbers-0-0.2-alike]",
    ),
    "labels of the parts of a batch that are not smoothed": Mutant(
        "loss.BatchLoss.of_part",
        "cross_entropy(logits, targets, self.weights, reduction='sum', label_smoothing=self.smoothing)",
        "cross_entropy(logits, targets, self.weights, reduction='sum')",
        f"{LOSS}::test_the_parts_of_a_batch_sum_to_its_loss_and_gradient[numbers-3-0.2-alike]",
    ),
    "gradients that are clipped tensor by tensor": Mutant(
        "fit.fit",
        "torch.nn.utils.clip_grad_norm_(parameters, training.optimizer.clip)",
        "[torch.nn.utils.clip_grad_norm_([one], training.optimizer.clip) for one in parameters]",
        f"{FIT}::test_all_gradients_together_are_clipped_by_one_norm",
    ),
    "heads of a grid that are clipped by their largest tensor": Mutant(
        "batched_heads.Heads._clip",
        "torch.stack([gradient.flatten(1).norm(dim=1) for gradient in gradients]).norm(dim=0)",
        "torch.stack([gradient.flatten(1).norm(dim=1) for gradient in gradients]).amax(dim=0)",
        f"{GRID}::test_the_gradients_of_a_head_are_clipped_as_torch_clips_them",
    ),
    "mixup that keeps the labels": Mutant(
        "mixing.Mixup.blended",
        "targets[partners]",
        "targets",
        f"{MIXING}::test_images_and_labels_are_blended_by_the_same_share_with_the_same_partners",
    ),
    "an epoch that is twice in the curve after a resume": Mutant(
        "events.EventFile.add",
        "_step(one) < row.step",
        "True",
        f"{EVENTS}::test_a_run_that_goes_on_has_no_epoch_twice_or_missing_and_keeps_the_times_of_those_that_it_does_not"
        "_repeat[3]",
    ),
    "a checksum that is turned the other way": Mutant(
        "events.masked_crc",
        "crc >> 15 | crc << 17",
        "crc >> 17 | crc << 15",
        f"{EVENTS}::test_each_epoch_is_there_as_soon_as_it_is_added_with_every_column_of_metrics_csv",
    ),
    "gradients that are clipped by the norm of all heads": Mutant(
        "batched_heads.Heads._clip",
        "torch.stack([gradient.flatten(1).norm(dim=1) for gradient in gradients]).norm(dim=0)",
        "torch.stack([gradient.flatten(1).norm(dim=1) for gradient in gradients]).norm()",
        f"{POOLED}[linear]",
    ),
    "an average that is not scored": Mutant(
        "batched_heads.Heads._scoring", "self.average is not None", "self.average is None", f"{POOLED}[mlp]"
    ),
    "a kept head that is another one of its pooling": Mutant(
        "grid.fit_grid", "value[row_of_part]", "value[row_of_part - 1]", f"{POOLED}[linear]"
    ),
    "a batch of no images after the last one": Mutant(
        "bank.FeatureBank.batches",
        "torch.split(order.to(self.device), size)[start:]",
        "torch.split(order[start * size:].to(self.device), size)",
        f"{BANK}::test_a_batch_is_the_chosen_view_of_the_images_in_their_order[8-3-in memory]",
    ),
    "blocks whose means differ and that count as if they did not": Mutant(
        "bank.std_mean",
        "share * (1 - share) * apart.square()",
        "0 * apart.square()",
        f"{BANK}::test_moments_of_blocks_are_those_of_all_and_nothing_cancels[0-7]",
    ),
    "kept logits in the precision of the rest": Mutant(
        "precision.full_float32",
        "_products('highest', False)",
        "_products(torch.get_float32_matmul_precision(), False)",
        f"{PRECISION}::test_a_run_computes_as_asked_and_what_follows_it_as_before[fast-device1-expected1]",
    ),
    "exactness that a GPU is only asked for": Mutant(
        "precision.numerics",
        "torch.use_deterministic_algorithms(exact, warn_only=not gpu)",
        "torch.use_deterministic_algorithms(exact, warn_only=True)",
        f"{PRECISION}::test_what_has_no_deterministic_algorithm_is_named_with_the_cure",
    ),
}


def copied_with_helpers(folder: Path) -> Path:
    copied(folder, "training")
    for name in HELPERS:
        shutil.copy(ROOT / "tests" / f"{name}.py", folder / "tests")
    return folder


@pytest.mark.parametrize("name", MUTANTS)
def test_every_mutant_applies_to_the_source_of_today_and_names_a_test(name: str) -> None:
    mutant = MUTANTS[name]
    mutated((ROOT / TRAINING / f"{mutant.module}.py").read_text(encoding="utf-8"), mutant)
    file, _, test = mutant.test.partition("::")
    assert f"def {test.partition('[')[0]}(" in (ROOT / file).read_text(encoding="utf-8"), f"no test {mutant.test}"


@pytest.mark.slow  # each is a process of its own
@pytest.mark.parametrize("name", [None, *MUTANTS])
def test_the_mutant_is_killed_and_the_source_as_it_is_lives(name: str | None, tmp_path: Path) -> None:
    folder = copied_with_helpers(tmp_path)
    if name is None:
        done = run_tests(folder, *sorted({mutant.test for mutant in MUTANTS.values()}), plugins=PLUGINS)
        assert done.returncode == 0, done.stdout + done.stderr
        return
    mutant = MUTANTS[name]
    source = folder / TRAINING / f"{mutant.module}.py"
    source.write_text(mutated(source.read_text(encoding="utf-8"), mutant), encoding="utf-8")
    done = run_tests(folder, mutant.test, plugins=PLUGINS)
    assert done.returncode == 1, done.stdout + done.stderr  # 0: survived; 2 to 5: no test ran
    assert "1 failed" in done.stdout.splitlines()[-1], done.stdout
    for wrong in ("SyntaxError", "NameError", "AttributeError", "TypeError", "IndexError", "UnboundLocalError"):
        assert wrong not in done.stdout, done.stdout  # a change of the result, not a crash
