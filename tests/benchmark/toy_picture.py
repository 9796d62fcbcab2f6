"""An image to time with."""

import cv2

from ffnet_deploy.benchmark.steps import Picture
from tests.toy import picture

PICTURE = Picture(cv2.imencode(".png", picture(80, 120))[1].tobytes(), "a picture")
