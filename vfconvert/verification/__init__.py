"""Whether a file computes what the network computes, and how far the network is still what it was.

Parity compares an exported file with the converted network, number by number, and raises. Agreement compares the
converted network with the original on real images, and only tells.
"""

from vfconvert.verification.agreement import Agreement as Agreement
from vfconvert.verification.agreement import agreement as agreement
from vfconvert.verification.agreement import predict as predict
from vfconvert.verification.agreement import top1_accuracy as top1_accuracy
from vfconvert.verification.detections import image_with_detections as image_with_detections
from vfconvert.verification.detections import verify_detections as verify_detections
from vfconvert.verification.files import verify_onnx as verify_onnx
from vfconvert.verification.files import verify_program as verify_program
from vfconvert.verification.files import verify_torchscript as verify_torchscript
from vfconvert.verification.parity import BATCH_SIZES as BATCH_SIZES
from vfconvert.verification.parity import FLOAT32_TOLERANCE as FLOAT32_TOLERANCE
from vfconvert.verification.parity import OutputParity as OutputParity
from vfconvert.verification.parity import Parity as Parity
from vfconvert.verification.recipe import verify_recipe as verify_recipe
