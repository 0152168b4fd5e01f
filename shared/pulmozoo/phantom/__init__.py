from .chest import thorax as thorax
