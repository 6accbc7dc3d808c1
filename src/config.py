"""Every constant of the project, one greppable line each. Edit here, or override for one run: `make train LR=3e-4`.

`{NAME}` inside a text is another constant, filled in after the overrides: `DATASET=nuclei` moves INPUT and OUTPUT too.
The five headings below are read by settings.py: the folds of one experiment may differ in *machine* and *scoring* only.
"""

# === machine: where things lie and what they run on; never changes a result on purpose
INPUT = "input/{DATASET}"  # the competition's files, as downloaded
OUTPUT = "output/{DATASET}"  # folds, cache, predictions, submission
LOGS = "lightning_logs"  # a folder for each experiment, in it one for each fold and seed
WEIGHTS = "input/weights"  # ImageNet weights that `make weights` packed for working offline
DEVICE = "auto"  # auto | cpu | cuda | mps
DEVICES = 1  # of this computer, to train one fold together (DDP); TRAIN_BATCH_SIZE is divided among them
NODES = 1  # computers with DEVICES each: start it by torchrun or srun on each
PRECISION = "auto"  # auto (16 on CUDA; a training on a CPU tries bf16; else 32) | 16 | bf16 | 32
WORKERS = -1  # processes that load samples; -1: one a core, at most 8; 0: in the training process
LOGGER = "tensorboard"  # tensorboard | wandb (pip install wandb; WANDB_MODE=offline) | none; metrics.csv always
STEP_IMAGES = 4  # held-out images drawn after each epoch, in steps/ and as steps.gif; 0: none
# a training stops cleanly after this many, and RESUME=1 continues it; 0: no limit. Kaggle ends a kernel at 720
MAX_MINUTES = 0.0
CHECKPOINT_MINUTES = 10.0  # at most between checkpoints for RESUME=1, at an optimizer step; 0: after each epoch only
PROFILER = ""  # "" | simple | advanced | pytorch: Lightning's report in the run folder, of the first device
SUBMISSION = "{OUTPUT}/submission.csv"

# === data: which images, and how they are split
DATASET = "demo"  # a folder below input/
# auto | carvana | instances | split | beside | folders | rle | coco | yolo | labelme | contrails | solved
LAYOUT = "auto"
TRAIN_PATH = ""  # "": where the layout keeps it (train_hq, ...) | a folder, or a pattern: 'input/x/*_RGB.tif'
MASK_PATH = ""  # "": where the layout keeps it (train_masks, ...) | a folder, or a pattern: 'input/x/*_color.png'
ANNOTATOR = ""  # where several people drew the masks: "" takes the first | a part of the name of another's: 2ndHO
UNPAIRED = "refuse"  # images and masks without a partner: refuse | skip | empty (images without a mask show nothing)
TEST_PATH = ""  # "": where the layout keeps it (test_hq, stage1_test, ...)
TRAIN_FOLDS = "{OUTPUT}/train_folds.csv"
N_FOLDS = 5
FOLDS_SEED = 42  # of the split; SEED is the training's, so that seeds can be repeated on the same folds
# auto | none | a regex with one (group) on the image's path | folder | folder:2 | gap:5 and gap:60s (numbers, times in
# the name) | column:NAME of the table that TABLE= names
GROUP = "auto"
TASK = "auto"  # auto (as make folds finds it) | binary | multiclass (one class a pixel) | multilabel (classes overlap)
# "": as they are | "vehicle=car+truck, road": merged, renamed, and what is not listed left out, by make folds
CLASSES = ""
IGNORE = "auto"  # the value of a class map that is not labeled: auto (255 where the masks show it) | a value | -1: none
MASK_THRESHOLD = 0  # the lowest gray of a binary mask that is foreground; 0: as make folds finds it
MASK_CHANNEL = "auto"  # auto | color | alpha: where a mask with an alpha channel is drawn
IN_CHANNELS = 0  # 0: as make folds finds them (3; a stack's slices) | 1: gray | 3: RGB | n: all of a file's channels
MAX_PIXELS = 100_000_000  # an image whose header promises more is refused before it is decoded
LIMIT = 0  # 0: all; n: only n batches of everything (make smoke)

# === network: what is trained
# smp_<architecture>_<encoder>: whatever smp can build, tu- encoders included | unet: the plain one |
# unetify_<timm name> or unetify_tv-<torchvision name>: a U-Net's decoder around a backbone
MODEL_NAME = "smp_unet_tu-tf_efficientnet_lite0"
MAX_FEATURES = 512  # of the plain unet, at its bottom
ENCODER_WEIGHTS = "imagenet"  # imagenet | none | a local .safetensors or .pth
# "" | an experiment: fold k begins as fold k's model of it, as far as shapes allow, in place of ENCODER_WEIGHTS; a:43
# takes SEED=43's
INIT = ""
IMAGE_SIZE = (256, 256)  # height, width of the network's input; IMAGE_SIZE=256 means a square
RESIZE = "stretch"  # stretch | fit (keep the aspect, pad) | none (own size; a batch needs equal sizes)
# auto (as the encoder's weights were trained; data for random ones) | data (constants for 8-bit RGB, else measured) |
# measured (by make folds) | constants: the next two, which auto takes too where they are given
NORMALIZE = "auto"
MODEL_MEAN = (0.485, 0.456, 0.406)  # of RGB in [0, 1]; these are ResNets' of ImageNet
MODEL_STD = (0.229, 0.224, 0.225)

# === training: how
EXPERIMENT = "{DATASET}"  # name of the folder below LOGS
EPOCHS = 20
TRAIN_BATCH_SIZE = 8
VALID_BATCH_SIZE = 16
ACCUMULATE = 1  # batches per optimizer step
SYNC_BATCHNORM = 1  # 1: on several GPUs batch norms see the whole batch, as on one; 0: each its own share
LOSS = "ce + dice"  # names joined by +, with weights and arguments: 0.5*dice + focal(gamma=2); README lists them
OPTIMIZER = "adamw"  # adam | adamw | sgd | radam | nadam
LR = 1e-3  # the peak, after the warm-up; make lr FOLD=0 suggests one
ENCODER_LR = 1.0  # the encoder's share of LR; less keeps more of what its weights know
MOMENTUM = 0.9  # of sgd
WEIGHT_DECAY = 1e-2  # not on norms and biases
SCHEDULE = "cosine"  # cosine (to zero) | restarts | onecycle | poly | constant | plateau (halved when Dice stalls)
WARMUP = 0.1  # share of all steps over which the learning rate rises
CYCLES = 3  # of restarts
PATIENCE = 3  # epochs without a better validation Dice before plateau halves the learning rate
GRADIENT_CLIP = 1.0  # the gradient's norm is clipped at this value; 0: off
FREEZE_ENCODER = 0  # number of first epochs in which the encoder stays as it is, its batch norms too
EMA = 0.99  # decay of the averaged weights that are scored and shipped; 0: off
DEEP_SUPERVISION = 0  # coarser levels of the decoder that are trained too, and not shipped; 0: none
# none | flips | upright (mirrored, a little turned) | turns (no side is up: cells, satellites) | affine (and a
# mirror) | carvana and hands (the tutorials') | nails (photographs) | strong (for random weights)
AUGMENT = "turns"
AUGMENT_ON = "cpu"  # cpu: in the loader's processes | device: with Kornia, a batch at a time, after the transfer
CROP = (0, 0)  # height, width of random crops to train on, of IMAGE_SIZE's frame or RESIZE=none's; 0,0: whole images
MIX = "none"  # none | mixup | cutmix | both
MIX_ALPHA = 0.4  # parameter of the beta distribution of mixup's and CutMix's shares; smaller: one image prevails
BALANCE = "none"  # none | strata (each as often as any other) | name=2,other=1 (the strata's shares; else 1)
FOREGROUND = 0.0  # share of training images (with CROP: of crops) that show foreground; 0: as they come
OVERFIT = 0  # n: train and validate on the first n training images; fails under Dice 0.9; its own folder, ..._overfit
SEED = 42
EARLY_STOPPING = 0  # epochs without a better validation Dice before stopping; 0: off, the schedule runs to its end
CHECKPOINT = "last"  # last | best: the best epoch is chosen on the fold that is reported, and every number says so

# === scoring: from probability to mask to number
METRIC = "dice"  # the competition's measure: dice, dsb2018, contrails, hd95, ...; docs/scores.md lists them
MEASURES = ""  # further measures to report: "boundary_iou, surface_dice(tolerance=2)"
EMPTY = "one"  # Dice of an empty prediction on an empty mask: one | zero | skip (left out of the mean)
TTA = "none"  # the mean over views of each image: none | flips | d4 | scales | d4+scales
TTA_MEAN = "probability"  # probability | logit: what is averaged over the views
TILE = 0  # n: network frames larger than n x n are predicted in tiles of that size; a multiple of 32; 0: whole
OVERLAP = 0.25  # of neighboring tiles, as a share of one
POSTPROCESS = "settings"  # settings (the seven lines below) | tuned (what make tune found; inference and submission)
THRESHOLD = 0.5  # a pixel is foreground where the probability reaches it; multiclass takes the likeliest class
MIN_AREA = 0  # objects of fewer pixels are removed; 0: none
FILL_HOLES = 0  # 1: holes in a mask are filled
KEEP_LARGEST = 0  # n: only the n largest objects of an image stay; 0: all
SPLIT = 0  # n: touching objects are cut apart where their centers lie at least n px apart (watershed); 0: none
TOP_THRESHOLD = 0.0  # an image's mask is empty unless TOP_AREA pixels reach this probability; 0: no such test
TOP_AREA = 0
# auto (the layout's) | carvana | dsb2018 | tgs | airbus | siim | hubmap | uwmgi | contrails | vesuvius; also how a
# table of training masks is read
DIALECT = "auto"
