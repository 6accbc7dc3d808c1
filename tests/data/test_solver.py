"""Images and masks found among the files of public data sets, by their names and a look: understood, or asked.

A tree is a few lines: a pattern of paths, and what such files hold: `photo`, `seen` (a field of view, the same in all),
or a mask of some thing, `cell`, which two people draw alike; other things lie elsewhere, `cell*` lies within it.
"""

import itertools
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image

import folds
from conftest import write_mask
from data.dataspec import DataSpec
from data.layout_match import Places
from data.solver.looks import Look, looker
from data.solver.solution import solve
from metrics import objects

GRID = np.arange(32)
IDS = {
    "n": [f"{number}" for number in range(1, 7)],
    "nnn": [f"{number:03d}" for number in range(8)],
    "a": ["ab12cd", "9f-77e0", "c0ffee-1", "dead-10", "b0b", "e5a1c"],
    "A": ["austin", "chicago", "vienna"],
    "s": ["left", "right"],
    "split": ["train", "val", "test"],
    "Split": ["Train", "Val", "Test"],
    "o": ["0", "1", "2"],
}


def tree(*lines):
    """Expand `pattern: what` into {path: what}."""
    files = {}
    for line in lines:
        pattern, _, what = line.partition(": ")
        used = [name for name in IDS if f"<{name}>" in pattern]
        for values in itertools.product(*(IDS[name] for name in used)):
            path = pattern
            for name, value in zip(used, values, strict=True):
                path = path.replace(f"<{name}>", value)
            files[path] = what
    return files


def looks(files):
    """Make a look at these files: each thing has rows of its own, each image columns of its own."""
    things = sorted({what.rstrip("*") for what in files.values()} - {"photo", "seen"})

    def look(path):
        what = files[path]
        if what == "photo":
            return Look(0.2, (64, 80), np.ones((32, 32), bool), 1.0)
        area = np.zeros((32, 32), bool)
        if what == "seen":
            area[4:28, 4:28] = True
        else:
            start = 2 * things.index(what.rstrip("*"))
            column = sum(map(ord, Path(path).stem[:12])) % 24
            area[start : start + 2, column : column + (8 if what[-1] != "*" else 4)] = True
        return Look(1.0, (64, 80), area, float(area.mean()))

    return look


def solved(*lines, **places):
    files = tree(*lines)
    return solve(Places(Path("in"), places.get("train"), places.get("masks")), looks(files), sorted(files))


KNOWN = {  # the tree -> an image and its mask, the number of pairs, and of images to predict
    "a folder exchanged": (["pictures/<a>.jpg: photo", "outlines/<a>.png: cell"],
        ("pictures/b0b.jpg", "outlines/b0b.png", 6, 0)),
    "CHASE": (["Image_<nnn>L.jpg: photo", "Image_<nnn>L_1stHO.png: vessel", "Image_<nnn>L_2ndHO.png: vessel"],
        ("Image_000L.jpg", "Image_000L_1stHO.png", 8, 0)),
    "DRIVE": (["training/images/<nnn>_training.tif: photo", "training/1st_manual/<nnn>_manual1.gif: vessel",
        "training/mask/<nnn>_training_mask.gif: seen", "test/images/<n>_test.tif: photo",
        "test/mask/<n>_test_mask.gif: seen"],
        ("training/images/003_training.tif", "training/1st_manual/003_manual1.gif", 8, 6)),
    "HRF": (["images/<nnn>_dr.JPG: photo", "manual1/<nnn>_dr.tif: vessel", "mask/<nnn>_dr_mask.tif: seen"],
        ("images/000_dr.JPG", "manual1/000_dr.tif", 8, 0)),
    "STARE": (["stare-images/im<nnn>.png: photo", "labels-ah/im<nnn>.ah.png: vessel",
        "labels-vk/im<nnn>.vk.png: vessel"], ("stare-images/im001.png", "labels-ah/im001.ah.png", 8, 0)),
    "ISIC": (["ISIC2018_Task1-2_Training_Input/ISIC_<nnn>.jpg: photo",
        "ISIC2018_Task1-2_Validation_Input/ISIC_1<nnn>.jpg: photo",
        "ISIC2018_Task1_Training_GroundTruth/ISIC_<nnn>_segmentation.png: lesion"],
        ("ISIC2018_Task1-2_Training_Input/ISIC_000.jpg",
        "ISIC2018_Task1_Training_GroundTruth/ISIC_000_segmentation.png", 8, 8)),
    "ISIC 2017": (["ISIC-2017_Training_Data/ISIC_<nnn>.jpg: photo",
        "ISIC-2017_Training_Data/ISIC_<nnn>_superpixels.png: tiles",
        "ISIC-2017_Training_Part1_GroundTruth/ISIC_<nnn>_segmentation.png: lesion"],
        ("ISIC-2017_Training_Data/ISIC_000.jpg", "ISIC-2017_Training_Part1_GroundTruth/ISIC_000_segmentation.png", 8,
        0)),
    "HAM10000": (["HAM10000_images_part_1/ISIC_<nnn>.jpg: photo", "HAM10000_images_part_2/ISIC_1<nnn>.jpg: photo",
        "HAM10000_segmentations/ISIC_<nnn>_segmentation.png: lesion",
        "HAM10000_segmentations/ISIC_1<nnn>_segmentation.png: lesion"],
        ("HAM10000_images_part_2/ISIC_1000.jpg", "HAM10000_segmentations/ISIC_1000_segmentation.png", 16, 0)),
    "numbers with and without zeros": (["images/img0<nnn>.png: photo", "masks/mask<n>.png: cell",
        "masks/mask0.png: cell", "masks/mask7.png: cell"], ("images/img0000.png", "masks/mask0.png", 8, 0)),
    "CVC-ClinicDB": (["Original/<n>.tif: photo", "Ground Truth/<n>.tif: polyp"],
        ("Original/1.tif", "Ground Truth/1.tif", 6, 0)),
    "GlaS": (["train_<n>.bmp: photo", "train_<n>_anno.bmp: gland", "testA_<n>.bmp: photo",
        "testA_<n>_anno.bmp: gland", "Grade.csv: text"], ("train_1.bmp", "train_1_anno.bmp", 6, 6)),
    "MoNuSeg": (["Tissue Images/TCGA-<a>.tif: photo", "Annotations/TCGA-<a>.xml: text",
        "Binary/TCGA-<a>_bin_mask.png: nucleus"],
        ("Tissue Images/TCGA-b0b.tif", "Binary/TCGA-b0b_bin_mask.png", 6, 0)),
    "LGG": (["kaggle_3m/TCGA_CS_<nnn>/TCGA_CS_<nnn>_<n>.tif: photo",
        "kaggle_3m/TCGA_CS_<nnn>/TCGA_CS_<nnn>_<n>_mask.tif: tumor"],
        ("kaggle_3m/TCGA_CS_001/TCGA_CS_001_1.tif", "kaggle_3m/TCGA_CS_001/TCGA_CS_001_1_mask.tif", 48, 0)),
    "Montgomery": (["CXR_png/MCUCXR_<nnn>_0.png: photo", "ManualMask/leftMask/MCUCXR_<nnn>_0.png: left",
        "ManualMask/rightMask/MCUCXR_<nnn>_0.png: right"],
        ("CXR_png/MCUCXR_000_0.png", "ManualMask/{class}/MCUCXR_000_0.png", 8, 0)),
    "BUSI": (["benign/benign (<n>).png: photo", "benign/benign (<n>)_mask.png: lump",
        "benign/benign (1)_mask_1.png: lump2", "normal/normal (<n>).png: photo",
        "normal/normal (<n>)_mask.png: lump"],
        ("benign/benign (1).png", "benign/benign (1)_mask{object}.png", 12, 0)),
    "CamVid": (["train/0001TP_<nnn>.png: photo", "trainannot/0001TP_<nnn>.png: road", "val/0016E5_<nnn>.png: photo",
        "valannot/0016E5_<nnn>.png: road", "test/Seq05_<nnn>.png: photo", "testannot/Seq05_<nnn>.png: road"],
        ("train/0001TP_001.png", "trainannot/0001TP_001.png", 16, 8)),
    "CamVid, full": (["701_StillsRaw_full/0001TP_<nnn>.png: photo", "LabeledApproved_full/0001TP_<nnn>_L.png: road"],
        ("701_StillsRaw_full/0001TP_001.png", "LabeledApproved_full/0001TP_001_L.png", 8, 0)),
    "Cityscapes": (["leftImg8bit/<split>/aachen/aachen_<nnn>_000019_leftImg8bit.png: photo",
        "gtFine/<split>/aachen/aachen_<nnn>_000019_gtFine_labelIds.png: road",
        "gtFine/<split>/aachen/aachen_<nnn>_000019_gtFine_instanceIds.png: road",
        "gtFine/<split>/aachen/aachen_<nnn>_000019_gtFine_color.png: road",
        "gtFine/<split>/aachen/aachen_<nnn>_000019_gtFine_polygons.json: text"],
        ("leftImg8bit/val/aachen/aachen_003_000019_leftImg8bit.png",
        "gtFine/val/aachen/aachen_003_000019_gtFine_labelIds.png", 16, 8)),
    "ADE20K": (["images/training/ADE_train_<nnn>.jpg: photo", "images/validation/ADE_val_<nnn>.jpg: photo",
        "annotations/training/ADE_train_<nnn>.png: wall", "annotations/validation/ADE_val_<nnn>.png: wall"],
        ("images/training/ADE_train_000.jpg", "annotations/training/ADE_train_000.png", 16, 0)),
    "Oxford pets": (["images/Abyssinian_<n>.jpg: photo", "annotations/trimaps/Abyssinian_<n>.png: pet",
        "annotations/xmls/Abyssinian_<n>.xml: text"],
        ("images/Abyssinian_1.jpg", "annotations/trimaps/Abyssinian_1.png", 6, 0)),
    "Massachusetts": (["tiff/train/<nnn>_15.tiff: photo", "tiff/train_labels/<nnn>_15.tif: roof",
        "tiff/val/<n>_16.tiff: photo", "tiff/val_labels/<n>_16.tif: roof", "tiff/test/<n>_17.tiff: photo",
        "tiff/test_labels/<n>_17.tif: roof"], ("tiff/train/000_15.tiff", "tiff/train_labels/000_15.tif", 14, 6)),
    "Inria": (["AerialImageDataset/train/images/<A><n>.tif: photo", "AerialImageDataset/train/gt/<A><n>.tif: roof",
        "AerialImageDataset/test/images/bellingham<n>.tif: photo"],
        ("AerialImageDataset/train/images/austin1.tif", "AerialImageDataset/train/gt/austin1.tif", 18, 6)),
    "Potsdam": (["2_Ortho_RGB/top_potsdam_2_<n>_RGB.tif: photo", "5_Labels_all/top_potsdam_2_<n>_label.tif: roof"],
        ("2_Ortho_RGB/top_potsdam_2_1_RGB.tif", "5_Labels_all/top_potsdam_2_1_label.tif", 6, 0)),
    "LoveDA": (["Train/Rural/images_png/<n>.png: photo", "Train/Rural/masks_png/<n>.png: road",
        "Train/Urban/images_png/1<n>.png: photo", "Train/Urban/masks_png/1<n>.png: road",
        "Val/Rural/images_png/2<n>.png: photo", "Val/Rural/masks_png/2<n>.png: road",
        "Test/Rural/images_png/3<n>.png: photo"],
        ("Train/Urban/images_png/11.png", "Train/Urban/masks_png/11.png", 18, 6)),
    "Supervisely": (["ds1/img/<a>.png: photo", "ds1/masks_machine/<a>.png: person", "ds1/masks_human/<a>.png: photo",
        "ds1/ann/<a>.png.json: text", "meta.json: text"], ("ds1/img/b0b.png", "ds1/masks_machine/b0b.png", 6, 0)),
    "Crack500": (["traincrop/<n>_<o>.jpg: photo", "traincrop/<n>_<o>.png: crack", "valcrop/9<n>_<o>.jpg: photo",
        "valcrop/9<n>_<o>.png: crack"], ("traincrop/1_0.jpg", "traincrop/1_0.png", 36, 0)),
    "DeepCrack": (["train_img/<nnn>.jpg: photo", "train_lab/<nnn>.png: crack", "test_img/11<n>.jpg: photo",
        "test_lab/11<n>.png: crack"], ("train_img/000.jpg", "train_lab/000.png", 8, 6)),
    "MVTec": (["bottle/train/good/<nnn>.png: photo", "bottle/test/broken/<nnn>.png: photo",
        "bottle/test/dirt/<nnn>.png: photo", "bottle/ground_truth/broken/<nnn>_mask.png: broken",
        "bottle/ground_truth/dirt/<nnn>_mask.png: dirt"],
        ("bottle/test/dirt/001.png", "bottle/ground_truth/dirt/001_mask.png", 16, 8)),
    "magnetic tiles": (["MT_Blowhole/Imgs/exp<n>_num_<nnn>.jpg: photo", "MT_Blowhole/Imgs/exp<n>_num_<nnn>.png: hole",
        "MT_Free/Imgs/exp<n>_num_9<nnn>.jpg: photo", "MT_Free/Imgs/exp<n>_num_9<nnn>.png: hole",
        "test/exp1_num_7<nnn>.jpg: photo"],
        ("MT_Free/Imgs/exp1_num_9000.jpg", "MT_Free/Imgs/exp1_num_9000.png", 96, 8)),
    "NEU": (["images/training/<nnn>.jpg: photo", "images/test/1<nnn>.jpg: photo",
        "annotations/training/<nnn>.png: scratch"],
        ("images/training/000.jpg", "annotations/training/000.png", 8, 8)),
    "cellpose": (["train/<nnn>_img.png: photo", "train/<nnn>_masks.png: cell", "test/<nnn>_img.png: photo",
        "test/<nnn>_masks.png: cell"], ("train/000_img.png", "train/000_masks.png", 8, 8)),
    "cell tracking": (["01/t<nnn>.tif: photo", "01_GT/SEG/man_seg<nnn>.tif: cell", "02/t<nnn>.tif: photo",
        "02_GT/SEG/man_seg<nnn>.tif: cell"], ("02/t001.tif", "02_GT/SEG/man_seg001.tif", 16, 0)),
    "Penn-Fudan": (["PNGImages/FudanPed<nnn>.png: photo", "PedMasks/FudanPed<nnn>_mask.png: person",
        "Annotation/FudanPed<nnn>.txt: text"], ("PNGImages/FudanPed000.png", "PedMasks/FudanPed000_mask.png", 8, 0)),
    "drone": (["dataset/original_images/<nnn>.jpg: photo", "dataset/label_images_semantic/<nnn>.png: roof",
        "RGB_color_image_masks/RGB_color_image_masks/<nnn>.png: roof"],
        ("dataset/original_images/000.jpg", "dataset/label_images_semantic/000.png", 8, 0)),
    "DUTS": (["DUTS-TR/DUTS-TR-Image/ILSVRC_<nnn>.jpg: photo", "DUTS-TR/DUTS-TR-Mask/ILSVRC_<nnn>.png: thing",
        "DUTS-TE/DUTS-TE-Image/sun_<n>.jpg: photo", "DUTS-TE/DUTS-TE-Mask/sun_<n>.png: thing"],
        ("DUTS-TR/DUTS-TR-Image/ILSVRC_000.jpg", "DUTS-TR/DUTS-TR-Mask/ILSVRC_000.png", 8, 6)),
    "ECSSD": (["images/<nnn>.jpg: photo", "ground_truth_mask/<nnn>.png: thing"],
        ("images/000.jpg", "ground_truth_mask/000.png", 8, 0)),
    "COD10K": (["Train/Image/COD10K-<n>.jpg: photo", "Train/GT_Object/COD10K-<n>.png: fish",
        "Train/GT_Instance/COD10K-<n>.png: fish", "Train/GT_Edge/COD10K-<n>.png: edge",
        "Test/Image/COD10K-9<n>.jpg: photo", "Test/GT_Object/COD10K-9<n>.png: fish"],
        ("Train/Image/COD10K-1.jpg", "Train/GT_Object/COD10K-1.png", 6, 6)),
    "DIS5K": (["DIS-TR/im/<a>.jpg: photo", "DIS-TR/gt/<a>.png: chair", "DIS-VD/im/9<nnn>.jpg: photo",
        "DIS-VD/gt/9<nnn>.png: chair", "DIS-TE1/im/7<n>.jpg: photo", "DIS-TE1/gt/7<n>.png: chair"],
        ("DIS-TR/im/b0b.jpg", "DIS-TR/gt/b0b.png", 14, 6)),
    "FloodNet": (["train/train-org-img/<nnn>.jpg: photo", "train/train-label-img/<nnn>_lab.png: water",
        "val/val-org-img/1<n>.jpg: photo", "val/val-label-img/1<n>_lab.png: water"],
        ("train/train-org-img/000.jpg", "train/train-label-img/000_lab.png", 14, 0)),
    "KITTI road": (["training/image_2/um_<nnn>.png: photo", "training/image_2/uu_<nnn>.png: photo",
        "training/gt_image_2/um_road_<nnn>.png: road", "training/gt_image_2/uu_road_<nnn>.png: road",
        "testing/image_2/um_<n>.png: photo"],
        ("training/image_2/um_000.png", "training/gt_image_2/um_road_000.png", 16, 6)),
    "DAVIS": (["JPEGImages/480p/bear/<nnn>.jpg: photo", "JPEGImages/480p/bus/<nnn>.jpg: photo",
        "Annotations/480p/bear/<nnn>.png: bear", "Annotations/480p/bus/<nnn>.png: bus"],
        ("JPEGImages/480p/bus/001.jpg", "Annotations/480p/bus/001.png", 16, 0)),
    "UAVid": (["seq<n>/Images/<nnn>.png: photo", "seq<n>/Labels/<nnn>.png: road"],
        ("seq1/Images/001.png", "seq1/Labels/001.png", 48, 0)),
    "a folder an image": (["<a>/image.png: photo", "<a>/mask.png: cell"], ("b0b/image.png", "b0b/mask.png", 6, 0)),
    "prefixes": (["img_<n>.png: photo", "msk_<n>.png: cell"], ("img_1.png", "msk_1.png", 6, 0)),
    "numbered objects": (["scans/im<n>.png: photo", "nuclei/im<n>_<o>.png: cell"],
        ("scans/im1.png", "nuclei/im1_{object}.png", 6, 0)),
    "a folder of objects": (["scans/<a>.png: photo", "nuclei/<a>/<o>.png: cell"],
        ("scans/b0b.png", "nuclei/b0b", 6, 0)),
    "overlays": (["images/<n>.jpg: photo", "masks/<n>.png: cell", "Overlays/<n>.jpg: photo"],
        ("images/1.jpg", "masks/1.png", 6, 0)),
    "CameraRGB": (["data<n>/CameraRGB/F-<nnn>.png: photo", "data<n>/CameraSeg/F-<nnn>.png: road"],
        ("data1/CameraRGB/F-000.png", "data1/CameraSeg/F-000.png", 48, 0)),
    "Unicode": (["images/caf\xe9 <n>.JPG: photo", "masks/cafe\u0301 <n>.png: cell"],
        ("images/caf\xe9 1.JPG", "masks/cafe\u0301 1.png", 6, 0)),
    "CrackForest": (["image/<nnn>.jpg: photo", "groundTruthPngImg/<nnn>.png: crack", "seg/<nnn>.seg: text"],
        ("image/000.jpg", "groundTruthPngImg/000.png", 8, 0)),
    "Fish": (["Sea Bass/Sea Bass/<nnn>.png: photo", "Sea Bass/Sea Bass GT/<nnn>.png: fish",
        "Sea Bass/00<n>.png: photo"], ("Sea Bass/Sea Bass/001.png", "Sea Bass/Sea Bass GT/001.png", 8, 6)),
    "the same numbers in each part": (["train/<n>.png: photo", "trainannot/<n>.png: road", "test/<n>.png: photo",
        "testannot/<n>.png: road"], ("train/1.png", "trainannot/1.png", 6, 6)),
    "more images than those called test": (["scans/<n>.png: photo", "outlines/<n>.png: cell", "extra/x<a>.png: photo",
        "test/t<n>.png: photo"], ("scans/1.png", "outlines/1.png", 6, 6)),
    "other zeros": (["scans/<n>.png: photo", "truth/000<n>.png: cell"], ("scans/1.png", "truth/0001.png", 6, 0)),
    "nnU-Net": (["imagesTr/case_<nnn>_0000.png: photo", "labelsTr/case_<nnn>.png: cell",
        "imagesTs/case_9<nnn>_0000.png: photo"], ("imagesTr/case_000_0000.png", "labelsTr/case_000.png", 8, 8)),
    "PH2": (["IMD<nnn>/IMD<nnn>_Dermoscopic_Image/IMD<nnn>.bmp: photo",
        "IMD<nnn>/IMD<nnn>_lesion/IMD<nnn>_lesion.bmp: lesion", "IMD<nnn>/IMD<nnn>_roi/IMD<nnn>_R1_Label4.bmp: spot"],
        ("IMD001/IMD001_Dermoscopic_Image/IMD001.bmp", "IMD001/IMD001_lesion/IMD001_lesion.bmp", 8, 0)),
    "lungs of two hospitals": (["CXR_png/CHN_<nnn>_0.png: photo", "CXR_png/MCU_<n>_1.png: photo",
        "masks/CHN_<nnn>_0_mask.png: lung", "masks/MCU_<n>_1.png: lung"],
        ("CXR_png/MCU_1_1.png", "masks/MCU_1_1.png", 14, 0)),
    "CVC-ClinicDB, twice": (["PNG/Original/<n>.png: photo", "PNG/Ground Truth/<n>.png: polyp",
        "TIF/Original/<n>.tif: photo", "TIF/Ground Truth/<n>.tif: polyp"],
        ("PNG/Original/1.png", "PNG/Ground Truth/1.png", 6, 0)),
    "annotators' folders": (["images/<n>.jpg: photo", "annotator2/<n>.png: cell", "annotator1/<n>.png: cell"],
        ("images/1.jpg", "annotator1/1.png", 6, 0)),
}  # fmt: skip
ASKED = {  # two readings, with the words of the lines to type
    "disc and cup": (["images/<n>.jpg: photo", "disc/<n>.png: disc", "cup/<n>.png: disc*"],
        ["MASK_PATH='in/disc'", "MASK_PATH='in/cup'"]),
    "38-Cloud": (["train_red/red_patch_<n>.TIF: photo", "train_blue/blue_patch_<n>.TIF: photo",
        "train_gt/gt_patch_<n>.TIF: cloud"], ["TRAIN_PATH='in/train_blue'", "TRAIN_PATH='in/train_red'"]),
}  # fmt: skip


@pytest.mark.parametrize("case", KNOWN)
def test_a_public_tree_is_understood(case):
    lines, (image, mask, pairs, tests) = KNOWN[case]
    found = solved(*lines)
    assert found is not None and not found.question and not found.match.alone, found
    assert {pair.image: pair.mask for pair in found.match.pairs}[image] == mask
    assert (len(found.match.pairs), len(found.match.tests)) == (pairs, tests)


@pytest.mark.parametrize("case", ASKED)
def test_two_readings_are_asked_with_a_line_for_each(case):
    lines, words = ASKED[case]
    question = solved(*lines).question
    assert all(word in question for word in words), question


def write_photo(path, seed, size=(40, 48)):
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 255, (5, 6, 3), np.uint8)
    Image.fromarray(cv2.resize(noise, size[::-1], interpolation=cv2.INTER_CUBIC)).save(path)


def square(top, left, side=8):
    mask = np.zeros((40, 48), bool)
    mask[top : top + side, left : left + side] = True
    return mask


def masks_of(name):
    return pd.read_csv(f"output/{name}/train_folds.csv", keep_default_na=False)["mask"].tolist()


def test_of_two_people_the_first_is_taken_and_a_constant_takes_the_other(workplace, refused, capsys):
    for number in range(6):
        write_photo(Path(f"input/x/Image_{number}L.jpg"), number)
        for person, side in (("1stHO", 8), ("2ndHO", 9)):
            write_mask(Path(f"input/x/Image_{number}L_{person}.png"), square(2 + 4 * number, 3 * number, side))
    assert folds.main(["DATASET=x", "N_FOLDS=2"]) == 0
    said = capsys.readouterr().out
    assert "2 people drew the images: 1stHO is taken; ANNOTATOR=2ndHO takes another" in said
    assert "6 files beside them (.png): the same, drawn otherwise" in said
    assert masks_of("x")[2] == "Image_2L_1stHO.png"
    assert folds.main(["DATASET=x", "N_FOLDS=2", "ANNOTATOR=2ndho", "OVERWRITE=1"]) == 0
    assert masks_of("x")[2] == "Image_2L_2ndHO.png"
    refused(folds.main, ["DATASET=x", "ANNOTATOR=3rd"], "ANNOTATOR=3rd names 0", "1stHO, 2ndHO")


def test_a_question_names_lines_that_work(workplace, refused):
    for number in range(6):
        write_photo(Path(f"input/x/images/{number}.jpg"), number)
        write_mask(Path(f"input/x/masks/{number}.png"), square(2 + 4 * number, 3 * number, 12))
        write_mask(Path(f"input/x/cups/{number}.png"), square(4 + 4 * number, 2 + 3 * number, 6))  # within it
    said = refused(folds.main, ["DATASET=x"], "6 images have masks in 2 places", "TABLE=my.csv")
    lines = [line.partition(": ")[2].replace("'", "") for line in said.splitlines() if "MASK_PATH=" in line]
    for line, mask in zip(lines, ("masks/3.png", "cups/3.png"), strict=True):
        assert folds.main(["DATASET=x", "N_FOLDS=2", line, "OVERWRITE=1"]) == 0
        assert masks_of("x")[3] == mask


def test_an_objects_files_are_one_mask_and_several_objects(tmp_path):
    for name, place in {
        "a_0": (2, 2),
        "a_1": (6, 6),
        "a_1_0": (20, 20),
        "b_mask": (2, 2),
        "b_mask_1": (20, 20),
        "c_object0": (2, 2),
        "c_object1": (20, 20),
    }.items():
        write_mask(tmp_path / f"{name}.png", square(*place))
    for reference, area in (("a_{object}.png", 112), ("b_mask{object}.png", 128), ("c_object{object}.png", 128)):
        assert DataSpec().read_mask(tmp_path, reference, (40, 48)).sum() == area
        labels = objects.read(DataSpec(), tmp_path, reference, (40, 48))
        assert np.unique(labels).tolist() == [0, 1, 2]


def test_a_look_tells_masks_from_photographs(tmp_path):
    write_photo(tmp_path / "photo.jpg", 1, (200, 240))
    dark = cv2.imread(str(tmp_path / "photo.jpg")) * (np.kron(square(4, 4, 30), np.ones((5, 5))) > 0)[..., None]
    Image.fromarray(dark.astype(np.uint8)).save(tmp_path / "scan.png")
    mask = (np.kron(square(8, 8, 16), np.ones((5, 5))) * 255).astype(np.uint8)
    Image.fromarray(mask).save(tmp_path / "mask.jpg", quality=70)
    Image.fromarray(cv2.GaussianBlur(mask, (9, 9), 0)).save(tmp_path / "soft.png")
    colors = np.random.default_rng(0).integers(0, 255, (20, 3), np.uint8)
    Image.fromarray(colors[np.arange(200 * 240).reshape(200, 240) // 2400]).save(tmp_path / "colors.png")
    look = looker(tmp_path)
    photographs, masks = (
        [look(name) for name in names] for names in (("photo.jpg", "scan.png"), ("mask.jpg", "soft.png", "colors.png"))
    )
    assert max(one.mask for one in photographs) + 0.08 < min(one.mask for one in masks)
    assert {one.size for one in masks} == {(200, 240)}
