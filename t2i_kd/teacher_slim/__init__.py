"""Makes `vgg19_slim`: VGG19's topology at a quarter of its width, taught by the full VGG19. Source: ours."""
