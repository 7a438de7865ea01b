"""Trains KD-DLGAN: a generator against a discriminator whose features learn from a vision-language model."""

import functools

import keras
from keras import ops

from t2i_kd.data.captioned_images import digest_of
from t2i_kd.errors import UserError
from t2i_kd.kd_dlgan.networks import Discriminator, FeatureHead, build_generator, check_side
from t2i_kd.kd_dlgan.objective import (
    aggregated_loss,
    correlated_loss,
    lecam_averages,
    lecam_penalty,
    pairwise_similarity,
)
from t2i_kd.options import refuse_unread
from t2i_kd.teachers.catalogue import check_dual_encoder, load_dual_encoder
from t2i_kd.training import mirrored_generator
from t2i_kd.training.adversarial import AdversarialTrainer, as_arrays, augmentation_numbers, check_gan
from t2i_kd.training.batch_captions import BatchCaptions
from t2i_kd.training.distribution import gathered
from t2i_kd.training.feature_cache import features_worth_caching
from t2i_kd.training.gan_losses import fake_loss, generator_loss, real_loss
from t2i_kd.training.inputs import network_digest
from t2i_kd.training.projected import (
    ProjectedDiscriminators,
    check_projection,
    projection_at,
    share_above_zero,
)
from t2i_kd.training.seed_diversity import check_seed_diversity, second_images, seed_diversity_of
from t2i_kd.training.system import evenly
from t2i_kd.training.text_to_image import GENERATOR, JOINT_EMBEDDING, TextToImageSystem, generator_inputs, text_network

OBJECTIVE = "kd_dlgan"
WEIGHTS = ("agkd_weight", "cgkd_weight", "diversity_weight")
VECTOR = "vector"
LECAM_DECAY = 0.99
MOST_PROMPTS = 256
# What data sets without classes of their own call theirs.
NO_NAMES = ("picture",)


class Teaching:
    """What teaches a discriminator.

    Args:
        image: `keras.Model` from images to vectors; see `DualEncoder`.
        prompts: float32 [prompts, dim], or None where no term reads them.
        head: `FeatureHead` of its discriminator's features, or None where neither AGKD nor CGKD is minimised.
    """

    def __init__(self, image, prompts, head):
        self.image, self.head = image, head
        self.prompts = None if prompts is None else ops.convert_to_tensor(prompts)


class KDDLGANTrainer(AdversarialTrainer):
    """The step of KD-DLGAN; see `objective` for AGKD, CGKD and the diversity term, each with a weight in the recipe.

        L_D = l_real(s(x, t)) + l_fake(s(G(t), t)) + w_A AGKD + w_C CGKD + w_L LeCam
        L_G = g(s(G(t), t)) + w_d diversity

    Args:
        network: the student's `keras.Model`.
        text: `keras.Model` from the student's text inputs to the text vector that its generator reads.
        discriminator: a `Discriminator`.
        teaching: `Teaching`; None: nothing teaches.
        recipe: `KDDLGANRecipe`.
    """

    def __init__(self, network, text, discriminator, teaching, recipe):
        heads = [] if teaching is None or teaching.head is None else [teaching.head]
        layers = [*self.layers_of(discriminator), *heads]
        super().__init__(network, layers, recipe.gan, recipe.training.ema, name=OBJECTIVE)
        self.text_network, self.discriminator, self.kd = text, discriminator, recipe.kd
        self.teacher = teaching and teaching.image
        self.head, self.prompts = (teaching.head, teaching.prompts) if teaching else (None, None)
        self.score_averages = None
        if self.kd.lecam_weight:
            self.score_averages = self.add_weight(
                shape=(2,), initializer="zeros", trainable=False, name="score_averages", aggregation="mean"
            )

    @staticmethod
    def layers_of(discriminator):
        """The discriminator's layers with spectral normalisation."""
        return [discriminator]

    @property
    def kept_variables(self):
        return super().kept_variables + ([] if self.score_averages is None else [self.score_averages])

    def prepare_discriminators(self):
        for each in self.discriminators:
            each.normalise()

    def update_averages(self, done):
        """As `AdversarialTrainer`'s from `ema_start` on; before, the averages are the variables."""
        if self.kd.ema_start:
            early = ops.cast(done < self.kd.ema_start, "float32")
            for average, variable in zip(self.averages, self.averaged_variables, strict=True):
                rate = ops.maximum(early, 1 - self.ema)
                average.assign(average + rate * (variable - average))
        else:
            super().update_averages(done)

    def generate(self, batch):
        """The generated image, the text vector, which has no gradient, and what discriminator and teacher see of it."""
        generator = self.generator.get_layer(GENERATOR)
        given = generator_inputs(self.text_network, generator, batch)
        image = generator(given, training=True)["image"]
        augmented = self.augmented(image, batch, real=False)
        outputs = {"image": image, "text": ops.stop_gradient(given["text"]), **self.seen(augmented)}
        outputs |= self.drawn_again(generator, given)
        if self.teacher is not None:
            vector = self.teacher(augmented if self.kd.teacher_sees == "augmented" else image, training=False)
            outputs[VECTOR] = vector if self.kd.diversity_weight else ops.stop_gradient(vector)
        return outputs

    def drawn_again(self, generator, given):
        """{name: images}: further ones that the generator draws of what it was given, for a term of its loss."""
        return {}

    def seen(self, images):
        """{name: tensor}: what the discriminator reads of augmented images."""
        return {"augmented": images}

    def real_seen(self, batch):
        """(what the discriminator reads of a batch's images, the teacher's vectors of them or None)."""
        image = ops.cast(batch["image"], "float32")
        augmented = self.augmented(image, batch, real=True)
        vector = None
        if self.head is not None:
            if "features" in batch:
                vector = batch["features"][VECTOR]
            else:
                vector = self.teacher(augmented if self.kd.teacher_sees == "augmented" else image, training=False)
        return self.seen(augmented), vector

    def discriminator_terms(self, batch, generated):
        """L_D; the adversarial loss, and AGKD, CGKD and LeCam's penalty, unweighted, are terms of their own."""
        seen, vector = self.real_seen(batch)
        loss, terms, features = self.adversarial_terms(seen, generated, batch)
        if self.head is not None:
            vectors = (vector, generated[VECTOR], *map(self.head, features))
            for weight, name, value in self.distillation(vectors, batch):
                terms[name] = value
                loss = loss + weight * value
        return loss, terms

    def distillation(self, vectors, batch):
        """[(weight, name, value)] of AGKD and CGKD. Args: vectors: r, f, d_r, d_f."""
        found, kd = [], self.kd
        if kd.agkd_weight:
            kept = None
            if kd.crossed_probability < 1:
                kept = ops.cast(batch["uniforms"][:, -2:] <= kd.crossed_probability, "float32")
            found.append((kd.agkd_weight, "agkd", aggregated_loss(*vectors, kept, kd.agkd_length)))
        if kd.cgkd_weight:
            # A sum over the whole batch, of which every device then has all.
            everyones = [gathered(each) for each in vectors]
            found.append((kd.cgkd_weight, "cgkd", correlated_loss(*everyones, self.prompts, kd.cgkd_variant)))
        return found

    def adversarial_terms(self, seen, generated, batch):
        """The adversarial part of L_D.

        Returns:
            (loss, {term: float32 scalar}, (real, generated)): the last two the features that the head reads, [batch,
            width] each.
        """
        kind, text = self.gan.gan_loss, generated["text"]
        both = self.discriminator.trunk(ops.concatenate([seen["augmented"], generated["augmented"]]))
        half = ops.shape(text)[0]
        features = both[:half], both[half:]
        right, fake = (self.discriminator.scores(each, text) for each in features)
        own = ops.mean(real_loss(kind, right)) + ops.mean(fake_loss(kind, fake))
        terms = {
            "discriminator": own,
            "real_for_real": share_above_zero(right),
            "generated_for_real": share_above_zero(fake),
        }
        if self.score_averages is not None:
            terms["lecam"] = self.lecam(right, fake)
            own = own + self.kd.lecam_weight * terms["lecam"]
        return own, terms, features

    def lecam(self, right, fake):
        """LeCam's penalty, 0 before `lecam_start`; moves the averages of both kinds' scores, until then the last ones.

        The averages move first, as in the code.
        """
        started = ops.cast(self.optimizer.generator.iterations >= self.kd.lecam_start, "float32")
        averages, everyones = ops.convert_to_tensor(self.score_averages), (gathered(right), gathered(fake))
        averages = lecam_averages(averages, *everyones, LECAM_DECAY * started)
        self.score_averages.assign(averages)
        return started * lecam_penalty(right, fake, averages[0], averages[1])

    def generator_terms(self, batch, generated):
        """L_G; the adversarial losses, and the diversity term, unweighted, are terms of their own."""
        scores = self.scores_of(generated, generated["text"])
        terms = {f"generator_{head}": ops.mean(generator_loss(self.gan.gan_loss, s)) for head, s in scores.items()}
        loss = sum(terms.values())
        if self.kd.diversity_weight:
            terms["diversity"] = pairwise_similarity(gathered(generated[VECTOR]), self.prompts)
            loss = loss + self.kd.diversity_weight * terms["diversity"]
        return loss, terms

    def scores_of(self, seen, text):
        """{head: float32 scores} of what the discriminator reads."""
        return {"score": self.discriminator.scores(self.discriminator.trunk(seen["augmented"]), text)}

    def scores(self, batch):
        generated = self.generate(batch)
        seen = self.seen(self.augmented(ops.cast(batch["image"], "float32"), batch, real=True))
        return [as_arrays(self.scores_of(each, generated["text"])) for each in (seen, generated)]


class ProjectedKDDLGANTrainer(KDDLGANTrainer):
    """The step of KD-DLGAN whose discriminators see images through a teacher's taps; see `training.projected`.

    In place of the plain discriminator's loss stands theirs, in which an image with another's caption counts as
    generated, too. The features that the head reads are the heads' last maps, averaged over their places, side by side.
    L_G may have w_s L_S beside its other terms, see `training.seed_diversity`: what keeps a hundred pictures of one
    caption from ending as one image.

    Args:
        network, text, teaching, recipe: as `KDDLGANTrainer` has them.
        discriminator: `ProjectedDiscriminators`.
        seed_diversity: `SeedDiversity`, whose weighted loss is a part of L_G; None: none.
    """

    def __init__(self, network, text, discriminator, teaching, recipe, seed_diversity=None):
        super().__init__(network, text, discriminator, teaching, recipe)
        self.seed_diversity = seed_diversity

    @staticmethod
    def layers_of(discriminator):
        return discriminator.heads

    def drawn_again(self, generator, given):
        """With a `seed_diversity` its `second`, see `second_images`."""
        return {} if self.seed_diversity is None else second_images(generator, given)

    def generator_terms(self, batch, generated):
        """As `KDDLGANTrainer`'s; with a `seed_diversity` its hinge and its share are terms of their own, unweighted."""
        loss, terms = super().generator_terms(batch, generated)
        if self.seed_diversity is not None:
            apart, own = self.seed_diversity.weighted(generated)
            loss, terms = loss + apart, terms | own
        return loss, terms

    def seen(self, images):
        return {f"projected_{tap}": values for tap, values in self.discriminator.features(images).items()}

    def _projected(self, seen):
        return {tap: seen[f"projected_{tap}"] for tap in self.discriminator.projection.output}

    def adversarial_terms(self, seen, generated, batch):
        views = self.discriminator.views(self._projected(seen), self._projected(generated))
        (name,) = self.text_network.input
        loss, terms = self.discriminator.discriminator_loss(
            self.gan.gan_loss, *views, generated["text"], BatchCaptions.of(batch, name).next_differs()
        )
        return loss, terms, [ops.concatenate([view["mean"] for view in kind], axis=-1) for kind in views]

    def scores_of(self, seen, text):
        return self.discriminator.scores(self.discriminator.view(self._projected(seen)), text)


class KDDLGAN(TextToImageSystem):
    """A KD-DLGAN run; see `TextToImageSystem`."""

    own_objectives, reads_taps = (OBJECTIVE,), (JOINT_EMBEDDING,)

    @property
    def is_taught(self):
        """Whether any term reads a teacher's vectors."""
        return any(getattr(self.recipe.kd, name) for name in WEIGHTS)

    @property
    def reads_prompts(self):
        """Whether any term reads the prompts."""
        return bool(self.recipe.kd.cgkd_weight or self.recipe.kd.diversity_weight)

    def check_recipe(self):
        super().check_recipe()
        recipe, kd = self.recipe, self.recipe.kd
        check_gan(recipe.gan, recipe.training.batch_size)
        check_options(kd)
        if recipe.gan.gradient_penalty != "none":
            raise UserError("--gradient_penalty: the discriminator is spectrally normalised and takes none")
        if recipe.student.noise_dim < 1:
            raise UserError("--noise_dim: a GAN of few captions draws from noise; give its width, such as 128")
        self.check_networks()
        for stage in recipe.stages:
            check_seed_diversity(stage, recipe.student.noise_dim, OBJECTIVE)
            if stage.seed_diversity_weight and kd.discriminator != "teacher":
                raise UserError(f"--stage {stage.name}: seed_diversity_weight needs --discriminator=teacher")
            if stage.seed_diversity_weight and kd.generator != "mirrored":
                raise UserError(
                    f"--stage {stage.name}: seed_diversity_weight needs --generator=mirrored; between two passes of "
                    "biggan the batch normalisation differs, which would count as diversity"
                )
        self.check_unread()

    def check_unread(self):
        """`check_recipe` for options that nothing of this recipe reads."""
        recipe, kd = self.recipe, self.recipe.kd
        if self.is_taught:
            check_dual_encoder(recipe.teacher)
        else:
            reader = "a term with a weight above 0 (AGKD, CGKD or diversity)"
            refuse_unread(recipe.towers, reader)
            refuse_unread(kd, reader, ("teacher_sees",))
            through_it = kd.discriminator == "teacher" and not recipe.projection.discriminator_teacher
            embeds = any(stage.objective == JOINT_EMBEDDING for stage in recipe.stages)
            if recipe.teacher.teacher != "none" and not (through_it or embeds):
                refuse_unread(recipe.teacher, reader, ("teacher",))
        if not self.reads_prompts:
            refuse_unread(kd, "CGKD or the diversity term", ("prompts", "prompt_template"))
        for name, reader, unread in (
            ("agkd_weight", "AGKD", ("crossed_probability", "agkd_length")),
            ("cgkd_weight", "CGKD", ("cgkd_variant",)),
            ("lecam_weight", "--lecam_weight", ("lecam_start",)),
        ):
            if not getattr(kd, name):
                refuse_unread(kd, reader, unread)
        if not (kd.agkd_weight or kd.cgkd_weight):
            refuse_unread(kd, "AGKD or CGKD", ("head_units",))
        if not recipe.training.ema:
            refuse_unread(kd, "--ema", ("ema_start",))

    def warnings(self):
        lines, kd = super().warnings(), self.recipe.kd
        if kd.agkd_weight and kd.discriminator == "plain" and kd.agkd_length <= 1:
            lines.append(
                f"--agkd_length={kd.agkd_length}: AGKD draws a plain discriminator's features to vectors so short that "
                "its scores stay near 0; the authors' vectors, CLIP's, are some ten long"
            )
        starts = [("ema_start", kd.ema_start, "nothing is averaged")]
        if kd.lecam_weight:
            starts.append(("lecam_start", kd.lecam_start, "LeCam penalises nothing"))
        return lines + [
            f"--{name}={start}: stage {plan.stage.name} has {plan.steps:,} steps, so that {what} in it"
            for plan in self.plans
            for name, start, what in starts
            if start >= plan.steps
        ]

    def check_networks(self):
        """`check_recipe` for generator and discriminator."""
        recipe, kd = self.recipe, self.recipe.kd
        if kd.generator == "biggan":
            check_side(recipe.data.resolution)
            refuse_unread(recipe.mirrored, "--generator=mirrored")
        else:
            refuse_unread(kd, "--generator=biggan", ("generator_channels",))
        if kd.discriminator == "plain":
            check_side(recipe.data.resolution)
            refuse_unread(recipe.projection, "--discriminator=teacher")
            return
        if kd.lecam_weight:
            raise UserError("--lecam_weight: only --discriminator=plain has scores that it reads")
        check_projection(recipe.projection, recipe.gan, recipe.teacher, recipe.data.resolution)

    def build_generator(self):
        recipe = self.recipe
        side, text_dim, noise_dim = recipe.data.resolution, recipe.text.text_dim, recipe.student.noise_dim
        if recipe.kd.generator == "biggan":
            return build_generator(side, text_dim, noise_dim, recipe.kd.generator_channels)
        return mirrored_generator.from_options(recipe.mirrored, side, text_dim, noise_dim, recipe.training.seed)

    @property
    def uniforms(self):
        kd = self.recipe.kd
        crossed = 2 if kd.agkd_weight and kd.crossed_probability < 1 else 0
        return augmentation_numbers(self.recipe.gan) + crossed

    @functools.cached_property
    def dual_encoder(self):
        """The teacher's two towers; None where no term reads them."""
        if not self.is_taught:
            return None
        return load_dual_encoder(self.recipe.teacher, self.recipe.towers, self.recipe.data.resolution)

    @functools.cached_property
    def prompts(self):
        """The vectors of the prompts, float32 [prompts, dim]; None where no term reads them."""
        if not self.reads_prompts:
            return None
        return self.dual_encoder.prompts(prompt_texts(self.recipe.kd, self.dataset))

    def network_digests(self):
        found = super().network_digests()
        if self.dual_encoder is not None:
            found["image_tower"] = network_digest(self.dual_encoder.image)
        if self.prompts is not None:
            found["prompts"] = digest_of(self.prompts)
        return found

    def prepare(self):
        super().prepare()
        _ = self.prompts

    def descriptions(self):
        return [*super().descriptions(), self.describe_prompts]

    def describe_prompts(self):
        """How many prompts there are."""
        return [] if self.prompts is None else [f"prompts: {len(self.prompts):,}"]

    def objective_trainer(self, plan):
        recipe, text = self.recipe, text_network(self.network)
        side, text_dim, channels = recipe.data.resolution, recipe.text.text_dim, recipe.gan.discriminator_channels
        if recipe.kd.discriminator == "plain":
            discriminator = Discriminator(side, text_dim, channels)
            teaching = self.teaching(discriminator.width)
            return KDDLGANTrainer(self.network, text, discriminator, teaching, recipe)
        projection = projection_at(side, recipe.projection, recipe.teacher, self.dataset.images, recipe.training.seed)
        heads = ProjectedDiscriminators(projection, text_dim, channels)
        teaching = self.teaching(sum(head.trunk.output["mean"].shape[-1] for head in heads.heads))
        diversity = seed_diversity_of(plan.stage, projection, self.dataset.images)
        return ProjectedKDDLGANTrainer(self.network, text, heads, teaching, recipe, diversity)

    def teaching(self, features):
        """The `Teaching` of a discriminator with so many features; None where nothing teaches."""
        if not self.is_taught:
            return None
        kd, head = self.recipe.kd, None
        if kd.agkd_weight or kd.cgkd_weight:
            head = FeatureHead(features, kd.head_units, self.dual_encoder.dim)
        return Teaching(self.dual_encoder.image, self.prompts, head)

    def cached_features(self, plan):
        kd, data, training = self.recipe.kd, self.recipe.data, self.recipe.training
        if kd.teacher_sees != "plain" or not (kd.agkd_weight or kd.cgkd_weight):
            return None
        tower = self.dual_encoder.image
        network, limit = keras.Model(tower.input, {VECTOR: tower.output}), self.recipe.teacher.teacher_cache_mb
        return features_worth_caching(
            network, [VECTOR], self.dataset.images, data.flip, training.batch_size, plan.steps, limit
        )


def check_options(kd):
    """Raises `UserError` for a `KDDLGANOptions` that cannot be trained."""
    for name in (*WEIGHTS, "lecam_weight"):
        if not 0 <= getattr(kd, name) < float("inf"):
            raise UserError(f"--{name}: {getattr(kd, name)} is negative or not finite")
    for name in ("lecam_start", "ema_start"):
        if getattr(kd, name) < 0:
            raise UserError(f"--{name}: {getattr(kd, name)} is negative")
    if not 0 <= kd.crossed_probability <= 1:
        raise UserError(f"--crossed_probability: {kd.crossed_probability} is not in 0 to 1")
    if not 0 < kd.agkd_length < float("inf"):
        raise UserError(f"--agkd_length: {kd.agkd_length} is not above 0 and finite")
    if "{}" not in kd.prompt_template:
        raise UserError(f"--prompt_template: {kd.prompt_template!r} has no {{}} for the class's name")


def prompt_texts(kd, dataset):
    """The prompts of a run.

    Args:
        kd: `KDDLGANOptions`.
        dataset: the training `CaptionedImages`.

    Returns:
        A list of at least two different texts.

    Raises:
        UserError: naming `--prompts`, where there are fewer, or the classes have no names.
    """
    if kd.prompts == "classes":
        names = [dataset.label_names[label] for label in sorted(set(map(int, dataset.labels)))]
        nameless = next((name for name in names if name.isdigit() or name in NO_NAMES), None)
        if nameless is not None:
            raise UserError(
                f"--prompts: {dataset.name} has no names of its classes, such as {nameless!r}; give captions, or texts "
                "with ';' between"
            )
        texts = [kd.prompt_template.replace("{}", name) for name in names]
    elif kd.prompts == "captions":
        texts = evenly(list(dict.fromkeys(dataset.all_captions)), MOST_PROMPTS)
    else:
        texts = [text.strip() for text in kd.prompts.split(";") if text.strip()]
    if len(set(texts)) < 2:
        raise UserError(
            f"--prompts: {len(set(texts))} prompt{'s' * (len(set(texts)) != 1)} cannot be compared with each other; "
            "give texts with ';' between, or --cgkd_weight=0 and --diversity_weight=0"
        )
    return list(dict.fromkeys(texts))
